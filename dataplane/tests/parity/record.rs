//! Exchanges, and what of their replies is compared.

/// Which protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Memcached,
    Resp,
}

impl Protocol {
    /// A request that every reply before its own is known by, and its reply.
    pub(crate) fn mark(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Memcached => (b"mg end-of-reply k\r\n", b"EN kend-of-reply\r\n"),
            Self::Resp => (b"*2\r\n$4\r\nECHO\r\n$13\r\nthe-very-last\r\n", b"$13\r\nthe-very-last\r\n"),
        }
    }
}

/// A request, and what was answered when it was recorded.
pub(crate) struct Exchange {
    pub(crate) protocol: Protocol,
    /// The command's name in capitals, where the comparison needs it.
    pub(crate) name: String,
    pub(crate) request: Vec<u8>,
    pub(crate) reply: Vec<u8>,
}

impl Exchange {
    /// Fails unless the reply is the recorded one.
    #[track_caller]
    pub(crate) fn assert_answered(&self, way: &str, number: usize, reply: &[u8]) {
        let (ours, recorded) = (self.timeless(reply), self.timeless(&self.reply));
        assert!(
            ours == recorded,
            "{way}, request {number}: {}\nanswered: {}\nrecorded: {}",
            self.request[..self.request.len().min(300)].escape_ascii(),
            ours[..ours.len().min(600)].escape_ascii(),
            recorded[..recorded.len().min(600)].escape_ascii(),
        );
    }

    /// A reply without what time and a table's hash make of it.
    fn timeless(&self, reply: &[u8]) -> Vec<u8> {
        match (self.protocol, &self.name[..]) {
            (Protocol::Memcached, _) => timeless_lines(reply),
            (Protocol::Resp, "TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME") => match reply {
                [b':', b'0'..=b'9', ..] => b":#\r\n".to_vec(),
                reply => reply.to_vec(),
            },
            (Protocol::Resp, "KEYS" | "SCAN") => {
                let mut lines: Vec<_> = reply.split(|&byte| byte == b'\n').collect();
                lines.sort_unstable();
                lines.join(&b'\n')
            }
            _ => reply.to_vec(),
        }
    }
}

/// memcached's lines without seconds. No recorded value has a space in it, so that none is taken for such a line.
fn timeless_lines(reply: &[u8]) -> Vec<u8> {
    let lines: Vec<Vec<u8>> = reply.split(|&byte| byte == b'\n').map(timeless_line).collect();
    lines.join(&b'\n')
}

fn timeless_line(line: &[u8]) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let prefixes: &[&[u8]] = match words[0] {
        b"ME" => &[b"exp=", b"la="],
        b"HD" | b"VA" => &[b"t", b"l"],
        _ => return line.to_vec(),
    };
    let timeless = |word: &&[u8]| {
        let prefix = prefixes.iter().find(|&&prefix| {
            word.strip_prefix(prefix).is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
        });
        prefix.map_or(word.to_vec(), |prefix| {
            let end = if word.ends_with(b"\r") { &b"#\r"[..] } else { b"#" };
            [prefix, end].concat()
        })
    };
    words.iter().map(timeless).collect::<Vec<_>>().join(&b' ')
}
