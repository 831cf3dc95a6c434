//! Texts of others on the user's terminal.
//!
//! Names, labels, messages of the day and errors come from servers and other users. A terminal obeys escape sequences
//! in what it shows, so none of these texts reaches it as it is.

use std::borrow::Cow;
use std::fmt::Write;

/// A text for one line: every control character is shown instead of obeyed, newlines included.
pub fn line(text: &str) -> Cow<'_, str> {
    show(text, |_| false)
}

/// A text of several lines: newlines and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    show(text, |c| matches!(c, '\n' | '\t'))
}

fn show(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harmful = |c: char| is_harmful(c) && !keep(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Control characters, and those that make a line read in another order than it is written.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_not_obeyed() {
        assert_eq!(line("node1"), "node1");
        assert_eq!(line("a\x1b[2Jb\u{9b}c\nd"), "a\\u{1b}[2Jb\\u{9b}c\\u{a}d");
        assert_eq!(lines("a\n\tb\r"), "a\n\tb\\u{d}");
        assert_eq!(line("ünï 日本"), "ünï 日本");
        assert_eq!(line("x\u{202e}y"), "x\\u{202e}y");
    }
}
