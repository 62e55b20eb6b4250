//! What memcached is asked.

use dataplane::port::sim::Random;
use dataplane::protocol::memcached::conversation::{DatagramConversation, roomy_setup};
use dataplane::service::ServiceSetup;
use dataplane::table::memory::MemoryTable;
use dataplane::time::Now;

use crate::memcached_generate::step;
use crate::record::{Exchange, Protocol};
use crate::simulated::table;

/// Generated requests.
const GENERATED: usize = 3_000;
/// Bytes of a request that fits a datagram behind its frame header, whatever the headers before it.
const REQUEST_BYTES_MAX: usize = 1_400;

/// What the generator leaves out, and each command at least once. `CAS(k)` stands for the number that item k has then.
const WRITTEN: &[&str] = &[
    "version\r\n",
    "get a\r\n",
    "set a 5 0 3\r\nabc\r\n",
    "gets a missing a\r\n",
    "cas a 6 0 3 1\r\nabd\r\n",
    "cas a 6 0 3 CAS(a)\r\nabe\r\n",
    "cas missing 0 0 1 1\r\nx\r\n",
    "gets a\r\n",
    "add a 0 0 1\r\nx\r\n",
    "add b 0 0 1\r\nx\r\n",
    "replace c 0 0 1\r\nx\r\n",
    "replace b 0 4000000000 2\r\nxy\r\n",
    "append b 0 0 2\r\n>>\r\n",
    "prepend b 0 0 2\r\n<<\r\n",
    "append c 0 0 1\r\nx\r\n",
    "get a b c\r\n",
    "set gone 0 -1 1\r\nx\r\n",
    "get gone\r\n",
    "set quiet 0 0 1 noreply\r\nq\r\n",
    "gat 0 quiet\r\n",
    "gats 1000 quiet b\r\n",
    "touch quiet 0\r\n",
    "touch missing 0\r\n",
    "touch quiet x\r\n",
    "set n 0 0 2\r\n99\r\n",
    "incr n 1\r\n",
    "incr n 18446744073709551615\r\n",
    "decr n 1000\r\n",
    "incr n x\r\n",
    "incr a 1\r\n",
    "decr missing 1\r\n",
    "incr n 5 noreply\r\n",
    "delete n\r\n",
    "delete n\r\n",
    "delete n 0 noreply\r\n",
    "delete n 1\r\n",
    "mn\r\n",
    "mg missing v\r\n",
    "mg missing v q\r\n",
    "mg a c f h k l s t v Oopaque\r\n",
    "mg a\r\n",
    "mg v N0 v c\r\n",
    "mg v v\r\n",
    "ms v 3 c k b\r\nabc\r\n",
    "ms Zm9v 3 b c k F7\r\nabc\r\n",
    "mg Zm9v b k v f\r\n",
    "ms a 3 CCAS(a) c\r\nnew\r\n",
    "ms a 3 C1 c\r\nold\r\n",
    "ms a 3 I C1 c\r\nold\r\n",
    "mg a v c\r\n",
    "ms a 2 ME q\r\nno\r\n",
    "ms a 2 MA q\r\n+1\r\n",
    "ms a 2 MP\r\n0+\r\n",
    "ms missing 2 MR\r\nxx\r\n",
    "ms missing 2 E77 c\r\nxx\r\n",
    "ms a S1\r\n",
    "md a I\r\n",
    "mg a v c k\r\n",
    "md a q C1\r\n",
    "md a x\r\n",
    "mg a v f\r\n",
    "md a q\r\n",
    "md a k Oz\r\n",
    "ma n N0 J13 v c\r\n",
    "ma n D30 v\r\n",
    "ma n MD D100 v t\r\n",
    "ma missing\r\n",
    "ma v\r\n",
    "me n\r\n",
    "me missing\r\n",
    "mg n v v\r\n",
    "mg n !\r\n",
    "mg Zh== b\r\n",
    "get\r\n",
    "gat\r\n",
    "set a 0 0\r\n",
    "nonsense\r\n",
    "\r\n",
    "verbosity 1\r\n",
    "shutdown\r\n",
    "stats reset\r\n",
    "stats nonsense\r\n",
    "stats detail\r\n",
    "flush_all 100000\r\n",
    "get b\r\n",
    "flush_all\r\n",
    "get b\r\n",
    "flush_all noreply\r\n",
    "flush_all x\r\n",
];

/// What replies must be among those recorded, for the record to be worth replaying.
const REPLIES: [&str; 21] = [
    "VALUE ",
    "END\r\n",
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "OK\r\n",
    "RESET",
    "VERSION ",
    "ERROR\r\n",
    "ERROR: ",
    "CLIENT_ERROR ",
    "HD",
    "VA ",
    "EN",
    "NF",
    "NS",
    "EX",
    "ME ",
];

/// One who writes down what is said.
struct Recorder {
    server: DatagramConversation<MemoryTable>,
    exchanges: Vec<Exchange>,
}

impl Recorder {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.server.ask(Now::read(), 7, request).expect("a well-formed reply")
    }

    /// An item's CAS out of what `me` says of it, which leaves the item as it is.
    fn cas_of(&mut self, key: &str) -> u64 {
        let debug = self.ask(format!("me {key}\r\n").as_bytes());
        let text = String::from_utf8_lossy(&debug).into_owned();
        let cas = text.split(' ').find_map(|word| word.strip_prefix("cas="));
        cas.map_or(0, |cas| cas.parse().expect("a CAS is a number"))
    }

    fn say(&mut self, request: Vec<u8>) {
        assert!(request.len() <= REQUEST_BYTES_MAX);
        let reply = self.ask(&request);
        assert!(reply != b"SERVER_ERROR reply too large\r\n", "{}", request.escape_ascii());
        self.exchanges.push(Exchange { protocol: Protocol::Memcached, name: String::new(), request, reply });
    }
}

/// All of it.
pub(crate) fn record() -> Vec<Exchange> {
    let setup = ServiceSetup { reply_bytes_max: crate::simulated::REPLY_BYTES_MAX, ..roomy_setup() };
    let server = DatagramConversation::with_table(table(), &setup);
    let mut recorder = Recorder { server, exchanges: Vec::new() };
    for line in WRITTEN {
        let line = match line.split_once("CAS(") {
            Some((before, rest)) => {
                let (key, after) = rest.split_once(')').expect("it is closed");
                format!("{before}{}{after}", recorder.cas_of(key))
            }
            None => (*line).to_string(),
        };
        recorder.say(line.into_bytes());
    }
    // A value as large as a reply may be, in pieces that fit a datagram.
    recorder.say(b"set large 0 0 0\r\n\r\n".to_vec());
    let piece = "0123456789abcdef".repeat(80);
    for _ in 0..50 {
        recorder.say(format!("append large 0 0 {}\r\n{piece}\r\n", piece.len()).into_bytes());
        if recorder.exchanges.len().is_multiple_of(10) {
            recorder.say(b"gets large\r\n".to_vec());
        }
    }
    recorder.say(b"get large\r\n".to_vec());
    recorder.say(b"mg large v s c\r\n".to_vec());
    recorder.say(format!("get{}\r\n", " missing".repeat(170)).into_bytes());
    let mut random = Random::new(7);
    let mut generated = 0;
    while generated < GENERATED {
        if generated % 200 == 0 {
            recorder.say(b"flush_all\r\n".to_vec());
        }
        let request = step(&mut random).bytes(|key| recorder.cas_of(key));
        if request.len() <= REQUEST_BYTES_MAX {
            recorder.say(request);
            generated += 1;
        }
    }
    recorder.say(b"quit\r\n".to_vec());
    for reply in REPLIES {
        let has = |exchange: &Exchange| exchange.reply.starts_with(reply.as_bytes());
        assert!(recorder.exchanges.iter().any(has), "no reply that begins with {reply:?} is recorded");
    }
    recorder.exchanges
}
