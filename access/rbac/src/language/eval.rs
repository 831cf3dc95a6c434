use std::borrow::Cow;

use super::{
    Function, Value,
    parser::{Expr, Segment},
};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A name that means nothing here.
    #[error("{0} is not defined")]
    Undefined(String),
    /// A value of the wrong kind.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What the operator or the function takes.
        expected: &'static str,
        /// What it was given.
        found: &'static str,
    },
}

/// What the names of an expression stand for.
pub trait Scope {
    /// The value of a path of words, such as `["user", "spec", "roles"]`. What is not there is [`Value::Absent`].
    ///
    /// # Errors
    /// The first word means nothing in this scope.
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError>;

    /// Values of the labels whose key a test accepts.
    fn labels_matching(&self, _accepts: &dyn Fn(&str) -> bool) -> Vec<String> {
        Vec::new()
    }

    /// Whether every word is found in the resource, whatever the field.
    fn search(&self, _words: &[Cow<'_, str>]) -> bool {
        false
    }

    /// The type of the authority the action is about.
    fn ca_type(&self) -> &str {
        ""
    }
}

type Result<T, E = EvalError> = std::result::Result<T, E>;

/// Whether an expression is true.
///
/// # Errors
/// See [`EvalError`].
pub(super) fn holds(expr: &Expr, scope: &dyn Scope) -> Result<bool> {
    Ok(match expr {
        Expr::Not(inner) => !holds(inner, scope)?,
        Expr::And(parts) => {
            for part in parts {
                if !holds(part, scope)? {
                    return Ok(false);
                }
            }
            true
        }
        Expr::Or(parts) => {
            for part in parts {
                if holds(part, scope)? {
                    return Ok(true);
                }
            }
            false
        }
        Expr::Equal(a, b) => value(a, scope)?.equals(&value(b, scope)?),
        Expr::Unequal(a, b) => !value(a, scope)?.equals(&value(b, scope)?),
        other => match value(other, scope)? {
            Value::Bool(b) => b,
            other => return Err(EvalError::Kind { expected: "a truth value", found: other.describe() }),
        },
    })
}

/// The value of an expression.
pub(crate) fn value<'a>(expr: &'a Expr, scope: &'a dyn Scope) -> Result<Value<'a>> {
    Ok(match expr {
        Expr::Text(text) => Value::text(text),
        Expr::Number(number) => Value::Number(*number),
        Expr::Bool(b) => Value::Bool(*b),
        Expr::Path(path) => resolve(path, scope)?,
        Expr::Call(function, arguments) => call(*function, arguments, scope)?,
        Expr::Match(Function::LabelsMatching, _, pattern) => {
            let found = scope.labels_matching(&|key| pattern.matches(key));
            Value::List(found.into_iter().map(Cow::Owned).collect())
        }
        Expr::Match(function, subject, pattern) => {
            let items = match subject {
                Some(subject) => list(subject, scope)?,
                None => Vec::new(),
            };
            let found = items.iter().any(|item| pattern.matches(item));
            Value::Bool(found != (*function == Function::RegexpNotMatch))
        }
        Expr::Replace(source, regex, replacement) => {
            let kept = list(source, scope)?.into_iter().filter(|item| regex.is_match(item));
            Value::List(
                kept.map(|item| Cow::Owned(regex.replace_all(&item, replacement.as_str()).into_owned())).collect(),
            )
        }
        Expr::Not(_) | Expr::And(_) | Expr::Or(_) | Expr::Equal(..) | Expr::Unequal(..) => {
            Value::Bool(holds(expr, scope)?)
        }
    })
}

fn resolve<'a>(path: &'a [Segment], scope: &'a dyn Scope) -> Result<Value<'a>> {
    let mut words = [""; 8];
    if path.len() <= words.len() {
        for (word, segment) in words.iter_mut().zip(path) {
            *word = segment.text();
        }
        return scope.resolve(words.get(..path.len()).unwrap_or_default());
    }
    scope.resolve(&path.iter().map(Segment::text).collect::<Vec<_>>())
}

fn call<'a>(function: Function, arguments: &'a [Expr], scope: &'a dyn Scope) -> Result<Value<'a>> {
    let argument = |i: usize| match arguments.get(i) {
        Some(expr) => value(expr, scope),
        None => Ok(Value::Absent),
    };
    let items = |i: usize| match arguments.get(i) {
        Some(expr) => list(expr, scope),
        None => Ok(Vec::new()),
    };
    let truth = match function {
        Function::Equals => argument(0)?.equals(&argument(1)?),
        Function::Contains => {
            let (all, item) = (argument(0)?, text(argument(1)?)?);
            all.contains(&item).ok_or(EvalError::Kind { expected: "a list", found: all.describe() })?
        }
        Function::ContainsAny => {
            let (all, some) = (items(0)?, items(1)?);
            some.iter().any(|item| all.contains(item))
        }
        Function::ContainsAll => {
            let (all, some) = (items(0)?, items(1)?);
            !some.is_empty() && some.iter().all(|item| all.contains(item))
        }
        Function::AllEndWith => {
            let suffix = text(argument(1)?)?;
            items(0)?.iter().all(|item| item.ends_with(&*suffix))
        }
        Function::AllEqual => {
            let wanted = text(argument(1)?)?;
            items(0)?.iter().all(|item| *item == wanted)
        }
        Function::IsSubset => {
            let mut superset = Vec::new();
            for i in 1..arguments.len() {
                superset.extend(items(i)?);
            }
            items(0)?.iter().all(|item| superset.contains(item))
        }
        Function::HasPrefix => text(argument(0)?)?.starts_with(&*text(argument(1)?)?),
        Function::Exists => argument(0)? != Value::Absent,
        Function::Search => {
            let words = (0..arguments.len()).map(|i| text(argument(i)?)).collect::<Result<Vec<_>>>()?;
            scope.search(&words)
        }
        Function::CaType => return Ok(Value::text(scope.ca_type())),
        _ => return map_list(function, items(0)?, arguments.get(1), scope),
    };
    Ok(Value::Bool(truth))
}

/// Functions from lists to lists.
fn map_list<'a>(
    function: Function,
    items: Vec<Cow<'a, str>>,
    second: Option<&'a Expr>,
    scope: &'a dyn Scope,
) -> Result<Value<'a>> {
    let mapped: Vec<Cow<'a, str>> = match function {
        Function::Upper => items.iter().map(|i| Cow::Owned(i.to_uppercase())).collect(),
        Function::Lower => items.iter().map(|i| Cow::Owned(i.to_lowercase())).collect(),
        Function::EmailLocal => items.iter().filter_map(|i| email_local(i)).map(|i| Cow::Owned(i.to_owned())).collect(),
        Function::Split => {
            let separator = match second {
                Some(expr) => text(value(expr, scope)?)?,
                None => Cow::Borrowed(","),
            };
            let parts = |i: &Cow<'a, str>| i.split(&*separator).map(|p| Cow::Owned(p.to_owned())).collect::<Vec<_>>();
            items.iter().flat_map(parts).collect()
        }
        _ => items,
    };
    Ok(Value::List(mapped))
}

/// The part before the `@` of `name@host` or of `Some Name <name@host>`.
pub(crate) fn email_local(address: &str) -> Option<&str> {
    let bare = match address.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>')?,
        None => address,
    };
    let (local, host) = bare.trim().rsplit_once('@')?;
    (!local.is_empty() && !host.is_empty() && !local.contains(char::is_whitespace)).then_some(local)
}

fn list<'a>(expr: &'a Expr, scope: &'a dyn Scope) -> Result<Vec<Cow<'a, str>>> {
    let value = value(expr, scope)?;
    let found = value.describe();
    value.into_list().ok_or(EvalError::Kind { expected: "a list", found })
}

fn text(value: Value<'_>) -> Result<Cow<'_, str>> {
    let found = value.describe();
    value.into_text().ok_or(EvalError::Kind { expected: "a text", found })
}
