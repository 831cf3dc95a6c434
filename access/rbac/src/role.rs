//! A role in three stages: as written ([`RoleV6`]), parsed once for everybody ([`ParsedRole`]), and expanded for
//! one user ([`Role`]).

use std::sync::Arc;

use resources::Resource;
use wire::types::{RoleConditions, RoleOptions, RoleV6};

use crate::{
    fields::{LabelField, ListField},
    labels::{Keys, LabelScope, Lookup, Selector, SelectorTemplate, parse_expression},
    language::Expression,
    rules::RuleTable,
    template::Template,
    traits::Traits,
};

/// A role whose templates, patterns and conditions are parsed: made once per stored role and shared by all users.
///
/// What cannot be parsed gives nothing in `allow` and denies everything it could be about in `deny`.
#[derive(Debug)]
pub struct ParsedRole {
    pub(crate) source: RoleV6,
    pub(crate) options: RoleOptions,
    allow: ParsedSide,
    deny: ParsedSide,
}

#[derive(Debug)]
struct ParsedSide {
    conditions: RoleConditions,
    lists: [Vec<Result<Template, String>>; ListField::ALL.len()],
    selectors: [ParsedSelector; LabelField::ALL.len()],
    rules: Arc<RuleTable>,
}

#[derive(Debug)]
struct ParsedSelector {
    labels: Result<SelectorTemplate, String>,
    expression: Result<Option<Arc<Expression>>, String>,
}

impl ParsedRole {
    /// Parses a role. Defaults are filled if they are not.
    pub fn new(mut role: RoleV6) -> Arc<Self> {
        role.set_defaults();
        let spec = role.spec.clone().unwrap_or_default();
        Arc::new(Self {
            options: spec.options.unwrap_or_default(),
            allow: ParsedSide::new(spec.allow.unwrap_or_default()),
            deny: ParsedSide::new(spec.deny.unwrap_or_default()),
            source: role,
        })
    }

    /// The role this was parsed from.
    pub fn source(&self) -> &RoleV6 {
        &self.source
    }

    /// The name of the role.
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// What could not be parsed: path and problem.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let sides = [("spec.allow", &self.allow), ("spec.deny", &self.deny)];
        sides.into_iter().flat_map(|(path, side)| side.problems(path)).collect()
    }
}

impl ParsedSide {
    fn new(conditions: RoleConditions) -> Self {
        let lists = ListField::ALL.map(|field| {
            let texts = field.list(&conditions);
            texts.iter().map(|text| Template::parse(text).map_err(|e| e.to_string())).collect()
        });
        let selectors = LabelField::ALL.map(|field| ParsedSelector {
            labels: SelectorTemplate::parse(field.labels(&conditions)),
            expression: parse_expression(field.expression(&conditions)).map(|e| e.map(Arc::new)),
        });
        let rules = Arc::new(RuleTable::new(&conditions.rules));
        Self { lists, selectors, rules, conditions }
    }

    fn problems(&self, path: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (field, templates) in ListField::ALL.iter().zip(&self.lists) {
            let bad = templates.iter().enumerate().filter_map(|(i, t)| t.as_ref().err().map(|e| (i, e)));
            found.extend(bad.map(|(i, e)| (format!("{path}.{}[{i}]", field.name()), e.clone())));
        }
        for (field, selector) in LabelField::ALL.iter().zip(&self.selectors) {
            if let Err(e) = &selector.labels {
                found.push((format!("{path}.{}", field.name()), e.clone()));
            }
            if let Err(e) = &selector.expression {
                found.push((format!("{path}.{}_expression", field.name()), e.clone()));
            }
        }
        found.extend(self.rules.problems().map(|(i, e)| (format!("{path}.rules[{i}].where"), e.to_owned())));
        found
    }

    fn expand(&self, traits: &Traits, keys: &mut Keys) -> Side {
        let mut broken_lists = [false; ListField::ALL.len()];
        let mut index = 0;
        let lists = ListField::ALL.map(|field| {
            let templates = self.lists.get(index).map(Vec::as_slice).unwrap_or_default();
            if let Some(broken) = broken_lists.get_mut(index) {
                *broken = templates.iter().any(Result::is_err);
            }
            index += 1;
            let mut names: Vec<String> = Vec::new();
            for name in templates.iter().flatten().flat_map(|t| t.expand(traits)) {
                if field.accepts(&name) && !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        });
        let selectors = self.selectors.each_ref().map(|s| Selection {
            labels: s.labels.as_ref().map_err(Clone::clone).and_then(|labels| labels.expand(traits, keys)),
            expression: s.expression.clone(),
        });
        Side { lists, broken_lists, selectors, rules: Arc::clone(&self.rules) }
    }
}

/// A role expanded with the traits of one user.
#[derive(Debug)]
pub struct Role {
    parsed: Arc<ParsedRole>,
    pub(crate) allow: Side,
    pub(crate) deny: Side,
}

/// One side of an expanded role.
#[derive(Debug)]
pub(crate) struct Side {
    lists: [Vec<String>; ListField::ALL.len()],
    broken_lists: [bool; ListField::ALL.len()],
    selectors: [Selection; LabelField::ALL.len()],
    pub(crate) rules: Arc<RuleTable>,
}

/// A label selector and a label expression of one kind of resource.
#[derive(Debug)]
pub(crate) struct Selection {
    labels: Result<Selector, String>,
    expression: Result<Option<Arc<Expression>>, String>,
}

impl Role {
    pub(crate) fn new(parsed: Arc<ParsedRole>, traits: &Traits, keys: &mut Keys) -> Self {
        let (allow, deny) = (parsed.allow.expand(traits, keys), parsed.deny.expand(traits, keys));
        Self { parsed, allow, deny }
    }

    /// The name of the role.
    pub fn name(&self) -> &str {
        self.parsed.name()
    }

    /// The version of the role.
    pub fn version(&self) -> &str {
        &self.parsed.source.version
    }

    /// The options as written, defaults filled.
    pub fn options(&self) -> &RoleOptions {
        &self.parsed.options
    }

    /// What the role allows, as written.
    pub fn allow_conditions(&self) -> &RoleConditions {
        &self.parsed.allow.conditions
    }

    /// What the role denies, as written.
    pub fn deny_conditions(&self) -> &RoleConditions {
        &self.parsed.deny.conditions
    }

    /// Names the role allows, expanded for the user.
    pub fn allowed(&self, field: ListField) -> &[String] {
        self.allow.list(field)
    }

    /// Names the role denies, expanded for the user.
    pub fn denied(&self, field: ListField) -> &[String] {
        self.deny.list(field)
    }
}

impl Side {
    pub(crate) fn list(&self, field: ListField) -> &[String] {
        self.lists.get(field as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether some name of a list could not be parsed.
    pub(crate) fn list_is_broken(&self, field: ListField) -> bool {
        self.broken_lists.get(field as usize).copied().unwrap_or(false)
    }

    pub(crate) fn selection(&self, field: LabelField) -> &Selection {
        // The arrays have one entry per field, so the index is always there.
        &self.selectors[field as usize]
    }
}

impl Selection {
    /// Whether nothing is selected: neither labels nor an expression are given.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.labels, Ok(labels) if labels.is_empty()) && matches!(&self.expression, Ok(None))
    }

    /// In `allow`: labels and expression have to fit where given, and one of them has to be given.
    pub(crate) fn allows(&self, labels: &Lookup<'_>, traits: &Traits) -> bool {
        let (Ok(selector), Ok(expression)) = (&self.labels, &self.expression) else { return false };
        let by_labels = selector.is_empty() || selector.matches(labels);
        let by_expression = || {
            expression.as_ref().is_none_or(|e| e.holds(&LabelScope { labels: labels.labels, traits }).unwrap_or(false))
        };
        !self.is_empty() && by_labels && by_expression()
    }

    /// In `deny`: either is enough, and what cannot be decided denies. The answer names the part that fits.
    pub(crate) fn denies(&self, labels: &Lookup<'_>, traits: &Traits) -> Option<Part> {
        match &self.labels {
            Err(_) => return Some(Part::Labels),
            Ok(selector) if selector.matches(labels) => return Some(Part::Labels),
            Ok(_) => {}
        }
        match &self.expression {
            Err(_) => Some(Part::Expression),
            Ok(None) => None,
            Ok(Some(e)) => {
                e.holds(&LabelScope { labels: labels.labels, traits }).unwrap_or(true).then_some(Part::Expression)
            }
        }
    }

    /// Why `allow` does not fit, in words.
    pub(crate) fn mismatch(&self, labels: &Lookup<'_>, traits: &Traits) -> Option<(Part, String)> {
        match (&self.labels, &self.expression) {
            (Err(e), _) => return Some((Part::Labels, e.clone())),
            (_, Err(e)) => return Some((Part::Expression, e.clone())),
            (Ok(selector), Ok(expression)) if !selector.is_empty() || expression.is_none() => {
                if let Some(reason) = selector.mismatch(labels) {
                    return Some((Part::Labels, reason));
                }
            }
            _ => {}
        }
        let Ok(Some(expression)) = &self.expression else { return None };
        match expression.holds(&LabelScope { labels: labels.labels, traits }) {
            Ok(true) => None,
            Ok(false) => Some((Part::Expression, format!("{} is false", expression.text()))),
            Err(e) => Some((Part::Expression, e.to_string())),
        }
    }
}

/// A part of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Labels,
    Expression,
}

impl Part {
    /// The name of the field: `node_labels` or `node_labels_expression`.
    pub(crate) fn field(self, field: LabelField) -> String {
        match self {
            Self::Labels => field.name().to_owned(),
            Self::Expression => format!("{}_expression", field.name()),
        }
    }
}
