use crate::{
    language::{Dialect, EvalError, Expr, Expression, ExpressionError, Function, Scope, Value, value},
    pattern::Pattern,
    traits::Traits,
};

/// Traits that `internal` may name.
const INTERNAL: [&str; 10] = [
    "logins",
    "windows_logins",
    "kubernetes_groups",
    "kubernetes_users",
    "db_names",
    "db_users",
    "db_roles",
    "aws_role_arns",
    "azure_identities",
    "gcp_service_accounts",
];
/// Besides those.
const INTERNAL_TOKEN: &str = "jwt";

/// A value of a role: a fixed text, or `prefix{{expression}}suffix`, which stands for one text per value of a trait.
#[derive(Clone, Debug)]
pub struct Template {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Fixed(String),
    Traits { prefix: String, suffix: String, expression: Expression },
}

impl Template {
    /// Parses a value.
    ///
    /// # Errors
    /// Braces that do not hold an expression, or an expression of something else than traits.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let Some((prefix, inner, suffix)) = braces(text)? else {
            return Ok(Self { form: Form::Fixed(text.to_owned()) });
        };
        let expression = Expression::parse(inner, Dialect::Template)?;
        if !is_traits(expression.root()) {
            return Err(ExpressionError::new("expected a trait, email.local or regexp.replace", text, 0));
        }
        check_internal(expression.root(), text)?;
        let (prefix, suffix) = (prefix.trim_start().to_owned(), suffix.trim_end().to_owned());
        Ok(Self { form: Form::Traits { prefix, suffix, expression } })
    }

    /// A value that is taken as it is.
    pub fn fixed(text: impl Into<String>) -> Self {
        Self { form: Form::Fixed(text.into()) }
    }

    /// Whether the value depends on traits.
    pub fn is_fixed(&self) -> bool {
        matches!(self.form, Form::Fixed(_))
    }

    /// The texts this stands for; empty ones are dropped.
    pub fn expand(&self, traits: &Traits) -> Vec<String> {
        match &self.form {
            Form::Fixed(text) if text.is_empty() => Vec::new(),
            Form::Fixed(text) => vec![text.clone()],
            Form::Traits { prefix, suffix, .. } => {
                let values = self.values(traits);
                values.iter().map(|v| format!("{prefix}{v}{suffix}")).filter(|text| !text.is_empty()).collect()
            }
        }
    }

    /// The patterns this stands for. What comes from traits stands for itself; without any value the pattern is
    /// that of the empty text.
    pub(crate) fn patterns(&self, traits: &Traits) -> Result<Vec<Pattern>, String> {
        match &self.form {
            Form::Fixed(text) => Ok(vec![Pattern::parse(text)?]),
            Form::Traits { prefix, suffix, .. } => {
                let values = self.values(traits);
                let values = values.iter().filter(|v| !(prefix.is_empty() && suffix.is_empty() && v.is_empty()));
                let patterns: Vec<_> = values.map(|v| Pattern::around(prefix, v, suffix)).collect::<Result<_, _>>()?;
                if patterns.is_empty() { Ok(vec![Pattern::Literal(String::new())]) } else { Ok(patterns) }
            }
        }
    }

    fn values(&self, traits: &Traits) -> Vec<String> {
        let Form::Traits { expression, .. } = &self.form else { return Vec::new() };
        let scope = TraitScope(traits);
        let list = value(expression.root(), &scope).ok().and_then(Value::into_list).unwrap_or_default();
        list.into_iter().map(std::borrow::Cow::into_owned).collect()
    }
}

/// Splits `prefix{{inner}}suffix`; `None` for a text without braces.
pub(crate) fn braces(text: &str) -> Result<Option<(&str, &str, &str)>, ExpressionError> {
    if !text.contains("{{") && !text.contains("}}") {
        return Ok(None);
    }
    let malformed = || {
        let message = "is using template brackets '{{' or '}}', however expression does not parse, \
                       make sure the format is prefix{{expression}}suffix";
        ExpressionError::new(message, text, 0)
    };
    let (prefix, rest) = text.split_once("{{").ok_or_else(malformed)?;
    let (inner, suffix) = rest.rsplit_once("}}").ok_or_else(malformed)?;
    let stray = |part: &str| part.contains(['{', '}']);
    // Braces of regular expressions inside quotes are fine; a second pair outside of them fails to parse later.
    if stray(prefix) || stray(suffix) || inner.trim().is_empty() {
        return Err(malformed());
    }
    Ok(Some((prefix, inner, suffix)))
}

/// Whether an expression gives texts of traits.
fn is_traits(expr: &Expr) -> bool {
    match expr {
        Expr::Path(_) => true,
        Expr::Call(Function::EmailLocal, arguments) => arguments.iter().all(is_traits),
        Expr::Replace(source, ..) => is_traits(source),
        _ => false,
    }
}

fn check_internal(expr: &Expr, text: &str) -> Result<(), ExpressionError> {
    match expr {
        Expr::Path(path) => {
            let words: Vec<&str> = path.iter().map(|s| s.text()).collect();
            match words.as_slice() {
                ["internal", name] if !INTERNAL.contains(name) && *name != INTERNAL_TOKEN => {
                    Err(ExpressionError::new(format!("unsupported variable {name:?}"), text, 0))
                }
                _ => Ok(()),
            }
        }
        Expr::Call(_, arguments) => arguments.iter().try_for_each(|a| check_internal(a, text)),
        Expr::Replace(source, ..) => check_internal(source, text),
        _ => Ok(()),
    }
}

/// Both namespaces read the same traits.
struct TraitScope<'a>(&'a Traits);

impl Scope for TraitScope<'_> {
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError> {
        match path {
            ["internal" | "external", name] => Ok(Value::list(self.0.get(name))),
            _ => Err(EvalError::Undefined(path.join("."))),
        }
    }
}

/// A test of names in conditions for requests, reviews and impersonation: a text with `*`, a regular expression
/// between `^` and `$`, or `prefix{{regexp.match("…")}}suffix`.
#[derive(Clone, Debug)]
pub struct Matcher {
    form: MatcherForm,
}

#[derive(Clone, Debug)]
enum MatcherForm {
    Patterns(Vec<Pattern>),
    Inner { prefix: String, suffix: String, pattern: Pattern, wanted: bool },
}

impl Matcher {
    /// Parses a test without traits.
    ///
    /// # Errors
    /// Braces that hold something else, or an invalid regular expression.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        Self::with_traits(text, &Traits::default())
    }

    /// Parses a test in which traits may stand: their values stand for themselves.
    ///
    /// # Errors
    /// As for [`Matcher::parse`].
    pub fn with_traits(text: &str, traits: &Traits) -> Result<Self, ExpressionError> {
        if let Some((prefix, inner, suffix)) = braces(text)? {
            let expression = Expression::parse(inner, Dialect::Template)?;
            if let Expr::Match(function, None, pattern) = expression.root() {
                let wanted = *function != Function::RegexpNotMatch;
                let (prefix, suffix) = (prefix.trim_start().to_owned(), suffix.trim_end().to_owned());
                return Ok(Self { form: MatcherForm::Inner { prefix, suffix, pattern: pattern.clone(), wanted } });
            }
        }
        let template = Template::parse(text)?;
        if !template.is_fixed() && template.expand(traits).is_empty() {
            return Ok(Self { form: MatcherForm::Patterns(Vec::new()) });
        }
        let patterns = template.patterns(traits).map_err(|message| ExpressionError::new(message, text, 0))?;
        Ok(Self { form: MatcherForm::Patterns(patterns) })
    }

    /// Whether a name passes.
    pub fn matches(&self, name: &str) -> bool {
        match &self.form {
            MatcherForm::Patterns(patterns) => patterns.iter().any(|p| p.matches(name)),
            MatcherForm::Inner { prefix, suffix, pattern, wanted } => name
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()))
                .is_some_and(|middle| pattern.matches(middle) == *wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn traits(entries: &[(&str, &[&str])]) -> Traits {
        entries.iter().map(|(k, v)| ((*k).to_owned(), v.iter().map(|s| (*s).to_owned()).collect())).collect()
    }

    fn expand(template: &str, entries: &[(&str, &[&str])]) -> Vec<String> {
        Template::parse(template).unwrap().expand(&traits(entries))
    }

    #[test]
    fn templates_stand_for_one_text_per_value() {
        for (template, entries, texts) in [
            ("root", &[][..], &["root"][..]),
            ("{{internal.logins}}", &[("logins", &["root", "bob"][..])][..], &["root", "bob"][..]),
            ("{{ external.unix }}", &[("unix", &["bob"][..])], &["bob"]),
            (r#"{{external["unix-name"]}}"#, &[("unix-name", &["bob"][..])], &["bob"]),
            (" tp{{external.short}}-x ", &[("short", &["bob", "alice"][..])], &["tpbob-x", "tpalice-x"]),
            (
                "{{email.local(external.email)}}",
                &[("email", &["bob@example.com", "nobody", "A <al@x.y>"][..])],
                &["bob", "al"],
            ),
            (
                r#"{{regexp.replace(external.groups, "^unix-(.*)$", "$1")}}"#,
                &[("groups", &["unix-bob", "sales"][..])],
                &["bob"],
            ),
            (
                r#"{{regexp.replace(email.local(external.email), "^(.*)-admin$", "$1")}}"#,
                &[("email", &["bob-admin@example.com", "x@example.com"][..])],
                &["bob"],
            ),
            (r#"{{regexp.replace(external.g, "^a{2}(.*)$", "${1}")}}"#, &[("g", &["aab"][..])], &["b"]),
            ("{{external.nothing}}", &[], &[]),
            ("{{external.empty}}", &[("empty", &[""][..])], &[]),
        ] {
            assert_eq!(expand(template, entries), texts, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, reason) in [
            ("{{internal.team}}", "unsupported variable \"team\""),
            ("{{external}}", "external is not defined"),
            ("{{external.a", "template brackets"),
            ("a}}b", "template brackets"),
            ("{{external.a}}{{external.b}}", "unexpected"),
            ("{{}}", "template brackets"),
            ("{{email.local(1, 2)}}", "takes 1 arguments"),
            ("{{upper(external.a)}}", "unknown function upper"),
            (r#"{{regexp.replace(external.a, "(", "")}}"#, "invalid regular expression"),
            (r#"{{regexp.replace(external.a, external.b, "")}}"#, "must be texts in quotes"),
        ] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn values_of_traits_are_no_patterns() {
        let star = traits(&[("team", &["*", "^.*$"])]);
        let patterns = Template::parse("{{external.team}}").unwrap().patterns(&star).unwrap();
        assert!(!patterns.iter().any(|p| p.matches("web")));
        let matcher = Matcher::with_traits("{{external.team}}", &star).unwrap();
        assert!(!matcher.matches("web"));
        assert!(matcher.matches("*"));
    }

    #[test]
    fn matchers_are_texts_globs_expressions_or_templates() {
        for (matcher, name, passes) in [
            ("dev", "dev", true),
            ("dev-*", "dev-1", true),
            ("^(dev|test)$", "test", true),
            (r#"{{regexp.match("^(dev|test)$")}}"#, "test", true),
            (r#"team-{{regexp.match("d*")}}-x"#, "team-dev-x", true),
            (r#"team-{{regexp.match("d*")}}-x"#, "dev", false),
            (r#"{{regexp.not_match("prod*")}}"#, "dev", true),
            (r#"{{regexp.not_match("prod*")}}"#, "prod-1", false),
            (r#"a-{{regexp.not_match("prod*")}}"#, "b-1", false),
            ("{{external.none}}", "", false),
        ] {
            assert_eq!(Matcher::parse(matcher).unwrap().matches(name), passes, "{matcher} {name}");
        }
    }
}
