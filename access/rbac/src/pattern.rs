use regex::{Regex, RegexBuilder};

/// Bounds what one regular expression may cost, in bytes.
const REGEX_SIZE: usize = 1 << 20;

/// A compiled pattern for one text.
///
/// `*` alone accepts everything; a text that begins with `^` and ends with `$` is a regular expression; any other
/// text is itself, with `*` for any characters.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// `*`.
    Any,
    /// A text without wildcards.
    Literal(String),
    /// The texts between wildcards: `a*b` is `["a", "b"]`.
    Glob(Vec<String>),
    /// A regular expression that describes the whole text.
    Regex(Regex),
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// A regular expression that is invalid or too costly.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.len() >= 2 && text.starts_with('^') && text.ends_with('$') {
            return build_regex(text).map(Self::Regex);
        }
        if text.contains('*') {
            return Ok(Self::Glob(text.split('*').map(str::to_owned).collect()));
        }
        Ok(Self::Literal(text.to_owned()))
    }

    /// A pattern around values that are not patterns: `prefix` and `suffix` may have wildcards or be the ends of a
    /// regular expression, `value` stands for itself.
    pub(crate) fn around(prefix: &str, value: &str, suffix: &str) -> Result<Self, String> {
        if prefix.starts_with('^') && suffix.ends_with('$') {
            return build_regex(&format!("{prefix}{}{suffix}", regex::escape(value))).map(Self::Regex);
        }
        let mut parts: Vec<String> = prefix.split('*').map(str::to_owned).collect();
        let mut after = suffix.split('*');
        if let Some(last) = parts.last_mut() {
            last.push_str(value);
            last.push_str(after.next().unwrap_or_default());
        }
        parts.extend(after.map(str::to_owned));
        match parts.len() {
            1 => Ok(Self::Literal(parts.remove(0))),
            _ => Ok(Self::Glob(parts)),
        }
    }

    /// Whether the whole text fits.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(literal) => literal == text,
            Self::Glob(parts) => glob(parts, text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Whether `text` is the parts in order, with anything between them.
fn glob(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

/// Compiles a regular expression of bounded cost.
pub(crate) fn build_regex(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build();
    built.map_err(|e| {
        let reason = e.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        format!("invalid regular expression {text:?}: {reason}")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn globs_and_expressions_describe_the_whole_text() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("prod", "prod", true),
            ("prod", "Prod", false),
            ("us-*-1", "us-east-1", true),
            ("us-*-1", "us-1", false),
            ("*a*", "bab", true),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("^us-(east|west)-\\d$", "us-east-1", true),
            ("^us$", "us-east", false),
            ("us-(east|west)-\\d", "us-east-1", false),
            ("a.c", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        assert!(Pattern::parse("^us-(east$").unwrap_err().contains("invalid regular expression"));
    }

    #[test]
    fn values_inside_patterns_stand_for_themselves() {
        let around = |p: &str, v: &str, s: &str, text: &str| Pattern::around(p, v, s).unwrap().matches(text);
        assert!(!around("", "*", "", "anything"));
        assert!(around("", "*", "", "*"));
        assert!(!around("^", ".*", "$", "anything"));
        assert!(around("^(a|b)-", "x", "$", "a-x"));
        assert!(around("team-", "a", "-*", "team-a-7"));
        assert!(!around("team-", "*", "-*", "team-a-7"));
        assert!(!around("", "^.*$", "", "anything"));
    }

    proptest! {
        #[test]
        fn a_glob_is_what_its_regular_expression_says(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let regex = format!("^{}$", pattern.split('*').map(regex::escape).collect::<Vec<_>>().join(".*"));
            prop_assert_eq!(matches(&pattern, &text), matches(&regex, &text));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(pattern in ".{0,20}", text in ".{0,20}") {
            let _ = Pattern::parse(&pattern).map(|p| p.matches(&text));
        }
    }
}
