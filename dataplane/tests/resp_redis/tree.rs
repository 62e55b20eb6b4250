//! Replies of replies.

/// Every reply there is in a reply, as a tree; what has no order is sorted.
pub(crate) fn tree(reply: &mut &[u8]) -> String {
    let end = reply.iter().position(|&byte| byte == b'\r').expect("a line");
    let line = String::from_utf8_lossy(&reply[..end]).into_owned();
    *reply = &reply[end + 2..];
    let (mark, rest) = line.split_at(1);
    let elements = |count: usize, reply: &mut &[u8]| (0..count).map(|_| tree(reply)).collect::<Vec<_>>();
    match mark {
        "$" if rest != "-1" => {
            let length: usize = rest.parse().expect("a length");
            let text = reply[..length].escape_ascii().to_string();
            *reply = &reply[length + 2..];
            text
        }
        "*" => format!("[{}]", elements(rest.parse().expect("a count"), reply).join(" ")),
        "~" => {
            let mut elements = elements(rest.parse().expect("a count"), reply);
            elements.sort_unstable();
            format!("set[{}]", elements.join(" "))
        }
        "%" => {
            let pairs: usize = rest.parse().expect("a count");
            format!("map[{}]", elements(2 * pairs, reply).join(" "))
        }
        _ => line,
    }
}
