use super::parser::Segment;

/// Where an expression stands, which decides what it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `*_labels_expression` of roles: `labels` and `user.spec.traits`.
    Labels,
    /// `where` of rules, of reviews and of impersonation, and the filters of session policies and thresholds.
    Where,
    /// `--query` of lists: `name`, `labels`, `resource`.
    Filter,
    /// Between the braces of templates: `internal`, `external`.
    Template,
}

/// A function with what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Equals,
    Contains,
    ContainsAny,
    ContainsAll,
    AllEndWith,
    AllEqual,
    IsSubset,
    CaType,
    LabelsMatching,
    RegexpMatch,
    RegexpNotMatch,
    RegexpReplace,
    EmailLocal,
    Upper,
    Lower,
    HasPrefix,
    Exists,
    Search,
    Split,
}

/// Name, function, fewest and most arguments.
type Row = (&'static str, Function, usize, usize);

const MANY: usize = 64;

const EQUALS: Row = ("equals", Function::Equals, 2, 2);
const CONTAINS: Row = ("contains", Function::Contains, 2, 2);
const MATCH: Row = ("regexp.match", Function::RegexpMatch, 2, 2);
const REPLACE: Row = ("regexp.replace", Function::RegexpReplace, 3, 3);
const EMAIL: Row = ("email.local", Function::EmailLocal, 1, 1);

const LABELS: &[Row] = &[
    CONTAINS,
    ("contains_any", Function::ContainsAny, 2, 2),
    ("contains_all", Function::ContainsAll, 2, 2),
    ("labels_matching", Function::LabelsMatching, 1, 1),
    MATCH,
    REPLACE,
    EMAIL,
    ("strings.upper", Function::Upper, 1, 1),
    ("strings.lower", Function::Lower, 1, 1),
];

const WHERE: &[Row] = &[
    EQUALS,
    CONTAINS,
    ("all_end_with", Function::AllEndWith, 2, 2),
    ("all_equal", Function::AllEqual, 2, 2),
    ("is_subset", Function::IsSubset, 2, MANY),
    ("system.catype", Function::CaType, 0, 0),
    MATCH,
];

const FILTER: &[Row] = &[
    EQUALS,
    CONTAINS,
    ("hasPrefix", Function::HasPrefix, 2, 2),
    ("exists", Function::Exists, 1, 1),
    ("search", Function::Search, 1, MANY),
    ("split", Function::Split, 2, 2),
];

const TEMPLATE: &[Row] = &[
    REPLACE,
    EMAIL,
    ("regexp.match", Function::RegexpMatch, 1, 1),
    ("regexp.not_match", Function::RegexpNotMatch, 1, 1),
];

impl Dialect {
    fn rows(self) -> &'static [Row] {
        match self {
            Self::Labels => LABELS,
            Self::Where => WHERE,
            Self::Filter => FILTER,
            Self::Template => TEMPLATE,
        }
    }

    /// The function of a name and whether the number of arguments suits it.
    pub(super) fn function(self, name: &str, arguments: usize) -> Result<Function, String> {
        let row = self.rows().iter().find(|row| row.0 == name);
        let Some((_, function, least, most)) = row else {
            return Err(match resources::nearest(name, self.rows().iter().map(|row| row.0)) {
                Some(near) => format!("unknown function {name}; did you mean {near}?"),
                None => format!("unknown function {name}"),
            });
        };
        if (*least..=*most).contains(&arguments) {
            return Ok(*function);
        }
        let wanted = if least == most { least.to_string() } else { format!("{least} or more") };
        Err(format!("{name} takes {wanted} arguments, found {arguments}"))
    }

    /// Whether a path can name something.
    pub(super) fn check_path(self, path: &[Segment]) -> Result<(), String> {
        let words: Vec<&str> = path.iter().map(Segment::text).collect();
        let root = words.first().copied().unwrap_or_default();
        let known: &[&str] = match self {
            Self::Labels => &["labels", "user"],
            Self::Where => &[
                "user",
                "resource",
                "session",
                "ssh_session",
                "session_tracker",
                "host_cert",
                "impersonate_role",
                "impersonate_user",
                "reviewer",
                "request",
                "review",
            ],
            Self::Filter => &["name", "labels", "resource"],
            Self::Template => &["internal", "external"],
        };
        if !known.contains(&root) {
            return Err(format!("{root} is not defined"));
        }
        let fits = match (self, root) {
            (Self::Labels | Self::Filter, "labels") => words.len() == 2,
            (Self::Labels, _) => words.len() == 4 && words[1..3] == ["spec", "traits"],
            (Self::Filter, "name") => words.len() == 1,
            (Self::Template, _) => words.len() == 2,
            (Self::Where, _) => words.len() >= 2,
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("{} is not defined", words.join("."))) }
    }
}
