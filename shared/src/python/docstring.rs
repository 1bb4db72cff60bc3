//! Docstrings: what a function does and what its arguments are, in the styles that are in use: Google's `Args:`, numpy's
//! underlined `Parameters`, and `:param name:` of reStructuredText.

use std::collections::BTreeMap;

/// A docstring, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Docs {
    /// The text that belongs to no section.
    pub(super) description: String,
    /// What it says of arguments or attributes, by name.
    pub(super) arguments: BTreeMap<String, Entry>,
}

/// What a docstring says of an argument.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The type that it gives, as it is written.
    pub(super) kind: Option<String>,
    /// The description; empty if there is none.
    pub(super) text: String,
}

/// Sections that describe arguments.
const ARGUMENTS: [&str; 8] = [
    "args",
    "arguments",
    "attributes",
    "keyword args",
    "keyword arguments",
    "other parameters",
    "parameters",
    "params",
];
/// Sections that are not for the model.
const OTHERS: [&str; 18] = [
    "example",
    "examples",
    "note",
    "notes",
    "raise",
    "raises",
    "references",
    "return",
    "returns",
    "see also",
    "side effects",
    "todo",
    "warning",
    "warnings",
    "warns",
    "yield",
    "yields",
    "throws",
];

/// Where a line belongs.
enum Section {
    Description,
    Arguments { style: Style, indent: Option<usize>, current: Option<String> },
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Google,
    Numpy,
    Fields,
}

impl Docs {
    /// Takes the text of a docstring apart.
    pub(super) fn read(text: &str) -> Self {
        let lines = clean(text);
        let mut docs = Self::default();
        let mut description = Vec::new();
        let mut section = Section::Description;
        let mut skip_underline = false;
        for (number, line) in lines.iter().enumerate() {
            if std::mem::take(&mut skip_underline) {
                continue;
            }
            let is_underlined = lines.get(number + 1).is_some_and(|next| is_underline(next));
            if let Some(next) = header(line, is_underlined) {
                skip_underline = is_underlined;
                section = next;
            } else if let Some(name) = docs.field(line) {
                section = Section::Arguments { style: Style::Fields, indent: None, current: name };
            } else if ends_section(&section, line) {
                section = Section::Description;
                description.push(line.as_str());
            } else {
                match &mut section {
                    Section::Description => description.push(line),
                    Section::Arguments { style, indent, current } => docs.argument(*style, indent, current, line),
                    Section::Other => {}
                }
            }
        }
        docs.description = description.join("\n").trim().to_owned();
        docs
    }

    /// A line `:param type name: text` or `:type name: text`; the answer names the argument that following lines go on
    /// with. Other fields belong to nobody.
    fn field(&mut self, line: &str) -> Option<Option<String>> {
        let (field, text) = line.strip_prefix(':')?.split_once(':')?;
        let mut words = field.split_whitespace();
        let text = text.trim();
        match words.next()? {
            "param" | "parameter" | "arg" | "argument" | "key" | "keyword" => {
                let words: Vec<&str> = words.collect();
                let (name, kind) = words.split_last()?;
                let entry = self.arguments.entry(plain(name)).or_default();
                text.clone_into(&mut entry.text);
                if !kind.is_empty() {
                    entry.kind = Some(kind.join(" "));
                }
                Some(Some(plain(name)))
            }
            "type" => {
                self.arguments.entry(plain(words.next()?)).or_default().kind = Some(kind(text));
                Some(None)
            }
            "return" | "returns" | "rtype" | "raise" | "raises" | "yield" | "yields" | "exception" => Some(None),
            _ => None,
        }
    }

    /// A line of a section on arguments: it begins an entry, or goes on with one.
    fn argument(&mut self, style: Style, indent: &mut Option<usize>, current: &mut Option<String>, line: &str) {
        let text = line.trim();
        if text.is_empty() {
            return;
        }
        let here = line.len() - line.trim_start().len();
        if style != Style::Fields && here <= *indent.get_or_insert(here) {
            let entries = if style == Style::Google { google(text) } else { numpy(text) };
            *current = entries.last().map(|(name, _)| name.clone());
            self.arguments.extend(entries);
        } else if let Some(entry) = current.as_ref().and_then(|name| self.arguments.get_mut(name)) {
            if !entry.text.is_empty() {
                entry.text.push(' ');
            }
            entry.text.push_str(text);
        }
    }
}

/// The lines of a docstring without the indentation of the code, as Python's own `inspect.cleandoc` makes them.
fn clean(text: &str) -> Vec<String> {
    let text = text.replace('\t', "        ");
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim().to_owned();
    let rest: Vec<&str> = lines.collect();
    let indents = rest.iter().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len());
    let margin = indents.min().unwrap_or_default();
    let rest = rest.iter().map(|line| line.get(margin..).unwrap_or_default().trim_end().to_owned());
    std::iter::once(first).chain(rest).collect()
}

fn is_underline(line: &str) -> bool {
    line.len() >= 3 && line.bytes().all(|byte| byte == b'-')
}

/// The section that a line opens.
fn header(line: &str, is_underlined: bool) -> Option<Section> {
    let (title, style) = match line.trim_end().strip_suffix(':') {
        Some(title) if !is_underlined => (title, Style::Google),
        _ if is_underlined => (line.trim_end(), Style::Numpy),
        _ => return None,
    };
    let title = title.to_lowercase();
    if ARGUMENTS.contains(&title.as_str()) {
        Some(Section::Arguments { style, indent: None, current: None })
    } else if OTHERS.contains(&title.as_str()) {
        Some(Section::Other)
    } else {
        None
    }
}

/// Whether a line that is not indented ends a section whose content is.
fn ends_section(section: &Section, line: &str) -> bool {
    match section {
        Section::Arguments { style: Style::Google | Style::Fields, .. } => !line.is_empty() && !line.starts_with(' '),
        Section::Arguments { style: Style::Numpy, .. } | Section::Description | Section::Other => false,
    }
}

/// `name (type): text` or `name: text`
fn google(line: &str) -> Vec<(String, Entry)> {
    let end = line.find([' ', '(', ':']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let (given, rest) = match closing(rest) {
        Some(end) => (Some(kind(&rest[1..end])), rest[end + 1..].trim_start()),
        None => (None, rest),
    };
    let text = rest.strip_prefix(':').map_or("", str::trim);
    vec![(plain(name), Entry { kind: given, text: text.to_owned() })]
}

/// `name : type` or `name, name : type`; the text follows on lines of its own.
fn numpy(line: &str) -> Vec<(String, Entry)> {
    let (names, given) = match line.split_once(':') {
        Some((names, given)) => (names, Some(kind(given))),
        None => (line, None),
    };
    names.split(',').map(|name| (plain(name), Entry { kind: given.clone(), text: String::new() })).collect()
}

/// The place of the bracket that closes the one at the start.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return (at > 0).then_some(at);
        }
    }
    None
}

/// A type without the words that people add.
fn kind(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let end = [", optional", ", default", ", required"].iter().filter_map(|word| lower.find(word)).min();
    text.get(..end.unwrap_or(text.len())).unwrap_or(text).trim().to_owned()
}

/// A name without stars and quotes.
fn plain(name: &str) -> String {
    name.trim().trim_matches(['*', '`', '\\']).to_owned()
}
