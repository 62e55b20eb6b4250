//! What is compared of two servers' replies.

/// A reply without what differs by nature: the order of keys, and cursors.
pub(crate) fn normalised(command: &str, reply: &[u8]) -> String {
    let text = reply.escape_ascii().to_string();
    match command {
        // The order of keys is each server's own. A scan here takes all in one step, so that the cursor is 0.
        "KEYS" | "SCAN" => {
            let mut lines: Vec<_> = text.split("\\r\\n").collect();
            lines.sort_unstable();
            lines.join("\n")
        }
        _ => text.replace("\\r\\n", "\n"),
    }
}

/// Whether two replies to a command tell the same. Two servers read their clocks one after the other.
pub(crate) fn alike(command: &str, ours: &[u8], theirs: &[u8]) -> bool {
    let tolerance = match command {
        "TTL" | "EXPIRETIME" => 1,
        "PTTL" | "PEXPIRETIME" => 5_000,
        _ => return normalised(command, ours) == normalised(command, theirs),
    };
    let integer = |reply: &[u8]| -> Option<i64> {
        std::str::from_utf8(reply).ok()?.strip_prefix(':')?.trim_end().parse().ok()
    };
    match (integer(ours), integer(theirs)) {
        (Some(ours), Some(theirs)) if ours > 0 && theirs > 0 => (ours - theirs).abs() <= tolerance,
        _ => ours == theirs,
    }
}
