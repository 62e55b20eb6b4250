//! The model: what a request makes of an item, and what it is answered.

use dataplane::limits::ITEM_BYTES_MAX;
use dataplane::port::sim::Random;
use dataplane::protocol::memcached;
use dataplane::service::{Service, ServiceFactory, ServiceSetup};
use dataplane::time::Now;

/// An item larger than this is deleted or set anew, so that a test does not outgrow its patience.
pub(crate) const VALUE_BYTES_MAX: usize = 12_000;

/// The service under test, with the largest replies and items there may be.
pub(crate) fn memcached() -> Box<dyn Service> {
    let setup = ServiceSetup {
        worker: 0,
        workers: 1,
        reply_bytes_max: 65_536,
        connections_max: 16,
        item_bytes_max: ITEM_BYTES_MAX,
        started: Now::default(),
    };
    memcached::factory().create(&setup).expect("a service").expect("for datagrams")
}

/// A request's datagram: one message, with its number.
pub(crate) fn framed(id: u16, message: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0], message].concat()
}

/// The number of a reply, which of its datagrams this is, and how many there are.
pub(crate) fn frame_header(datagram: &[u8]) -> (u16, u16, u16) {
    assert!((8..=1_400).contains(&datagram.len()), "a reply datagram of {} bytes", datagram.len());
    let field = |place: usize| u16::from_be_bytes([datagram[place], datagram[place + 1]]);
    let (id, number, total) = (field(0), field(2), field(4));
    assert!(number < total, "datagram {number} of {total}");
    (id, number, total)
}

/// An item: its value, or absent.
pub(crate) type Item = Option<Vec<u8>>;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Get,
    Set(Vec<u8>),
    Add(Vec<u8>),
    Append(Vec<u8>),
    Increment(u64),
    Delete,
}

impl Request {
    pub(crate) fn random(random: &mut Random) -> Self {
        let value = |random: &mut Random, most: usize| {
            let byte = b'a' + random.below(26) as u8;
            vec![byte; random.below(most)]
        };
        match random.below(10) {
            0 | 1 => Self::Set(value(random, 2_000)),
            2 => Self::Set(random.below(1_000_000).to_string().into_bytes()),
            3 => Self::Add(value(random, 100)),
            4 => Self::Append(value(random, 3_000)),
            5 => Self::Increment(random.below(1_000) as u64),
            6 => Self::Delete,
            _ => Self::Get,
        }
    }

    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        let store = |name: &str, value: &[u8]| {
            [format!("{name} {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
        };
        match self {
            Self::Get => format!("get {key}\r\n").into_bytes(),
            Self::Set(value) => store("set", value),
            Self::Add(value) => store("add", value),
            Self::Append(value) => store("append", value),
            Self::Increment(delta) => format!("incr {key} {delta}\r\n").into_bytes(),
            Self::Delete => format!("delete {key}\r\n").into_bytes(),
        }
    }

    /// The model: what carrying it out once makes of an item, and what it answers.
    pub(crate) fn carry_out(&self, key: &str, item: &Item) -> (Item, Vec<u8>) {
        let stored = |value: &[u8]| (Some(value.to_vec()), b"STORED\r\n".to_vec());
        match (self, item) {
            (Self::Get, Some(value)) => {
                let head = format!("VALUE {key} 0 {}\r\n", value.len());
                (item.clone(), [head.as_bytes(), value, b"\r\nEND\r\n"].concat())
            }
            (Self::Get, None) => (None, b"END\r\n".to_vec()),
            (Self::Set(value), _) | (Self::Add(value), None) => stored(value),
            (Self::Append(more), Some(value)) => stored(&[&value[..], more].concat()),
            (Self::Add(_), Some(_)) | (Self::Append(_), None) => (item.clone(), b"NOT_STORED\r\n".to_vec()),
            (Self::Increment(delta), Some(value)) => {
                let number =
                    std::str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.len() <= 20);
                match number.and_then(|text| text.parse::<u64>().ok()) {
                    Some(number) => {
                        let sum = number.wrapping_add(*delta).to_string();
                        (Some(sum.clone().into_bytes()), format!("{sum}\r\n").into_bytes())
                    }
                    None => {
                        let error = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
                        (item.clone(), error.to_vec())
                    }
                }
            }
            (Self::Increment(_) | Self::Delete, None) => (None, b"NOT_FOUND\r\n".to_vec()),
            (Self::Delete, Some(_)) => (None, b"DELETED\r\n".to_vec()),
        }
    }
}
