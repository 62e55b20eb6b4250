//! Patterns of `KEYS`, `SCAN` and `CONFIG GET`, as Redis's `stringmatchlen` matches them.

/// Longest pattern that is matched, in bytes: it is held against every key.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// Whether the whole of `text` matches: `*` any bytes, `?` one, `[a-c]` one of these, `[^a-c]` one of the others, and `\`
/// takes the next byte as it is.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // Where to go on when what is behind the last `*` does not match here. Earlier ones need no second try: whatever they
    // would take, the last one can.
    let mut last_star = None;
    while text_at < text.len() {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += 1;
            last_star = Some((pattern_at, text_at));
            continue;
        }
        if let Some(next) = one(&pattern[pattern_at..], text[text_at], case) {
            pattern_at += next;
            text_at += 1;
            continue;
        }
        let Some((behind, at)) = last_star.as_mut() else { return false };
        *at += 1;
        (pattern_at, text_at) = (*behind, *at);
    }
    // An empty text matches nothing, as Redis has it; nothing here is named so.
    !text.is_empty() && pattern[pattern_at..].iter().all(|&byte| byte == b'*')
}

/// Whether capital letters differ from small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They do.
    Kept,
    /// They do not.
    Ignored,
}

impl Case {
    fn of(self, byte: u8) -> u8 {
        match self {
            Self::Kept => byte,
            Self::Ignored => byte.to_ascii_lowercase(),
        }
    }
}

/// Bytes of the pattern that take one byte; `None` when it does not match, nor at the pattern's end.
#[inline]
fn one(pattern: &[u8], byte: u8, case: Case) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (matched, bytes) = in_class(class, byte, case);
            matched.then_some(1 + bytes)
        }
        [b'\\', escaped, ..] => (case.of(*escaped) == case.of(byte)).then_some(2),
        [plain, ..] => (case.of(*plain) == case.of(byte)).then_some(1),
    }
}

/// Whether a class takes a byte, and the bytes of the class behind its `[`. One that is not closed ends with the pattern.
fn in_class(class: &[u8], byte: u8, case: Case) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    loop {
        match &class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            // Case counts here, at Redis too.
            [b'\\', escaped, ..] => {
                matched |= *escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                let (low, high) = (case.of(*first.min(last)), case.of(*first.max(last)));
                matched |= (low..=high).contains(&case.of(byte));
                at += 3;
            }
            [plain, ..] => {
                matched |= case.of(*plain) == case.of(byte);
                at += 1;
            }
        }
    }
    (matched != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_match_at_redis() {
        let cases: &[(&str, &str, bool)] = &[
            ("*", "a", true),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\?llo", "h?llo", true),
            ("h\\?llo", "hello", false),
            ("[abc", "a", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("[\\]]", "]", true),
            ("a\\", "a\\", true),
            ("[a-]", "^", true),
            ("[a-]", "-", false),
            ("[a-", "a", true),
            ("", "a", false),
        ];
        for &(pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), Case::Kept),
                expected,
                "{pattern} against {text}"
            );
        }
        assert!(matches(b"SAVE", b"save", Case::Ignored));
        assert!(!matches(b"SAVE", b"save", Case::Kept));
    }

    #[test]
    fn stars_cost_no_more_than_the_product_of_the_lengths() {
        let pattern = b"*a".repeat(PATTERN_BYTES_MAX / 2);
        assert!(!matches(&pattern, &[b'a'; 250], Case::Kept));
        let pattern = [b"*a".repeat(200), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &[b'a'; 250], Case::Kept));
    }
}
