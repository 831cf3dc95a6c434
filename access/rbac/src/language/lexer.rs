use super::ExpressionError;

/// The longest expression accepted, in bytes.
const MAX_LENGTH: usize = 32 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    Number(String),
    Symbol(&'static str),
}

/// The tokens of a text, each with the byte offset where it begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    if text.len() > MAX_LENGTH {
        return Err(ExpressionError::new(format!("expression is longer than {MAX_LENGTH} bytes"), text, 0));
    }
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else { return Ok(found) };
        let (token, length) = match first {
            'a'..='z' | 'A'..='Z' | '_' => word(rest),
            '0'..='9' | '-' => {
                number(rest).ok_or_else(|| ExpressionError::new("expected a number after '-'", text, at))?
            }
            '"' => quoted(rest).ok_or_else(|| ExpressionError::new("text without closing quote", text, at))?,
            '`' => raw(rest).ok_or_else(|| ExpressionError::new("text without closing backtick", text, at))?,
            _ => symbol(rest).ok_or_else(|| ExpressionError::new(format!("unexpected {first:?}"), text, at))?,
        };
        found.push((at, token));
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn word(rest: &str) -> (Token, usize) {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    (Token::Word(rest[..end].to_owned()), end)
}

fn number(rest: &str) -> Option<(Token, usize)> {
    let digits = rest.strip_prefix('-').unwrap_or(rest);
    let sign = rest.len() - digits.len();
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if whole == 0 {
        return None;
    }
    let mut end = sign + whole;
    if let Some(fraction) = digits[whole..].strip_prefix('.') {
        let length = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        end += if length > 0 { length + 1 } else { 0 };
    }
    Some((Token::Number(rest[..end].to_owned()), end))
}

fn quoted(rest: &str) -> Option<(Token, usize)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                c @ ('"' | '\\') => value.push(c),
                other => {
                    // Regular expressions are full of backslashes; one that escapes nothing here belongs to them.
                    value.push('\\');
                    value.push(other);
                }
            },
            '"' => return Some((Token::Text(value), at + 1)),
            c => value.push(c),
        }
    }
    None
}

fn raw(rest: &str) -> Option<(Token, usize)> {
    let end = rest[1..].find('`')?;
    Some((Token::Text(rest[1..=end].to_owned()), end + 2))
}

fn symbol(rest: &str) -> Option<(Token, usize)> {
    const SYMBOLS: [&str; 11] = ["&&", "||", "==", "!=", "!", "(", ")", "[", "]", ",", "."];
    SYMBOLS.into_iter().find(|s| rest.starts_with(s)).map(|s| (Token::Symbol(s), s.len()))
}
