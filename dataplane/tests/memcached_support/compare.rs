//! What is compared of two servers' replies.

/// A reply without what differs by nature: CAS numbers, the clock, and the sizes of another memory layout.
pub(crate) fn normalised(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    let mut lines = Vec::new();
    for line in text.split("\r\n") {
        let words: Vec<&str> = line.split(' ').collect();
        let line = match words[..] {
            ["VALUE", key, flags, size, _cas] => format!("VALUE {key} {flags} {size} #"),
            ["ME", key, ..] => {
                let fetched = words.iter().find(|word| word.starts_with("fetch="));
                format!("ME {key} {fetched:?}")
            }
            ["HD" | "VA" | "EN" | "NF" | "NS" | "EX", ..] => {
                words.iter().map(|word| normalised_flag(word)).collect::<Vec<_>>().join(" ")
            }
            _ => line.to_string(),
        };
        lines.push(line);
    }
    lines.join("\n")
}

fn normalised_flag(word: &str) -> String {
    let (flag, number) = word.split_at_checked(1).unwrap_or((word, ""));
    match (flag, number.parse::<u64>()) {
        ("c", Ok(1..)) => "c#".to_string(),
        ("l", Ok(_)) => "l#".to_string(),
        // An expired item's time left wraps around at memcached.
        ("t", Ok(seconds)) if seconds > u64::from(u32::MAX) / 2 => "t0".to_string(),
        ("t", Ok(seconds)) => format!("t{}", seconds / 10),
        _ => word.to_string(),
    }
}
