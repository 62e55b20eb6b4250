//! Walks a TOML document and gathers every error on the way, instead of stopping at the first.
//!
//! A [`Section`] is a table whose keys are taken one by one; what is left when it is dropped is unknown, and said
//! so with the nearest key it does know. A [`Field`] is one value with its key path. A value that is wrong is
//! reported and then stands in as absent, so that reading goes on.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors};

/// The errors found so far.
pub(super) struct Report<'s> {
    source: &'s str,
    errors: RefCell<Vec<ConfigError>>,
    /// Where each key that was read stands.
    places: RefCell<HashMap<String, usize>>,
    /// The text is not TOML: what seems to be missing may stand in the part that could not be read.
    broken: Cell<bool>,
}

impl<'s> Report<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, errors: RefCell::default(), places: RefCell::default(), broken: Cell::new(false) }
    }

    /// Reports an error at a place in the text.
    pub(super) fn error(&self, place: Option<&Range<usize>>, key: &str, message: impl Into<String>) {
        let line = place.map(|place| self.line_of(place.start));
        let error = ConfigError { line, key: key.to_owned(), message: message.into() };
        self.errors.borrow_mut().push(error);
    }

    /// Reports an error about a key that has been read, or else about the nearest one above it that has.
    pub(super) fn error_at(&self, key: &str, message: impl Into<String>) {
        let places = self.places.borrow();
        let above = std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|end| &key[..end]));
        let line = above.into_iter().find_map(|key| places.get(key).copied());
        self.errors.borrow_mut().push(ConfigError { line, key: key.to_owned(), message: message.into() });
    }

    fn remember(&self, key: &str, place: &Range<usize>) {
        self.places.borrow_mut().insert(key.to_owned(), self.line_of(place.start));
    }

    /// Reports what was found elsewhere.
    pub(super) fn take_over(&self, found: ConfigErrors) {
        self.errors.borrow_mut().extend(found.errors);
    }

    /// Reports that a key lacks something, unless it could not be read: then that has been reported.
    pub(super) fn lacking(&self, key: &str, message: impl Into<String>) {
        let reported = self.broken.get() || self.errors.borrow().iter().any(|error| error.key == key);
        if !reported {
            self.error_at(key, message);
        }
    }

    /// Reports that something is not there.
    pub(super) fn missing(&self, place: Option<&Range<usize>>, key: &str, message: impl Into<String>) {
        if !self.broken.get() {
            self.error(place, key, message);
        }
    }

    fn line_of(&self, offset: usize) -> usize {
        let before = self.source.as_bytes().iter().take(offset);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    /// All errors in the order of their lines, if there are any.
    pub(super) fn finish(self) -> Result<(), ConfigErrors> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line.unwrap_or(0));
        errors.dedup();
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors { file: None, errors }) }
    }
}

/// Reads the text as TOML; the top of the document.
pub(super) fn document<'r, 's>(report: &'r Report<'s>) -> Section<'r, 's> {
    let (table, errors) = DeTable::parse_recoverable(report.source);
    report.broken.set(!errors.is_empty());
    for error in errors {
        report.error(error.span().as_ref(), "", format!("not TOML: {}", error.message()));
    }
    Section { report, path: String::new(), place: None, table: table.into_inner(), known: Vec::new() }
}

/// A table whose keys are taken one by one.
pub(super) struct Section<'r, 's> {
    report: &'r Report<'s>,
    path: String,
    place: Option<Range<usize>>,
    table: DeTable<'s>,
    known: Vec<&'static str>,
}

impl<'r, 's> Section<'r, 's> {
    /// Takes one key's value, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field<'r, 's>> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        Some(Field::new(self.report, self.path_of(key), value))
    }

    /// Takes a key that must be there.
    pub(super) fn require(&mut self, key: &'static str, example: &str) -> Option<Field<'r, 's>> {
        let field = self.take(key);
        if field.is_none() {
            self.missing(key, format!("is missing; write it like {key} = {example}"));
        }
        field
    }

    /// Takes a table; an absent one is read as an empty one, and so is what is no table, once that is reported.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        let empty = Section {
            report: self.report,
            path: self.path_of(key),
            place: None,
            table: DeTable::new(),
            known: Vec::new(),
        };
        self.take(key).and_then(Field::section).unwrap_or(empty)
    }

    /// Takes an array of tables, `[[key]]`, of which there must be one; `purpose` says what goes in there.
    pub(super) fn sections(&mut self, key: &'static str, purpose: &str) -> Vec<Section<'r, 's>> {
        let cure = format!("add a block [[{key}]] and {purpose} there");
        let Some(field) = self.take(key) else {
            self.missing(key, format!("is missing; {cure}"));
            return Vec::new();
        };
        let place = field.place();
        let items = Self::blocks(field, key);
        if items.as_ref().is_some_and(Vec::is_empty) {
            place.error(format!("is empty; {cure}"));
        }
        items.into_iter().flatten().filter_map(Field::section).collect()
    }

    /// Takes an array of tables, `[[key]]`, of which there may be none.
    pub(super) fn sections_if_any(&mut self, key: &'static str) -> Vec<Section<'r, 's>> {
        let items = self.take(key).and_then(|field| Self::blocks(field, key));
        items.into_iter().flatten().filter_map(Field::section).collect()
    }

    fn blocks(field: Field<'r, 's>, key: &str) -> Option<Vec<Field<'r, 's>>> {
        if field.value.get_ref().is_table() {
            field.error(format!("is one table; write [[{key}]] with two brackets, one block for each"));
            return None;
        }
        field.items()
    }

    /// Reports that one of this section's keys is not there.
    pub(super) fn missing(&self, key: &str, message: impl Into<String>) {
        self.report.missing(self.place.as_ref(), &self.path_of(key), message);
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Drop for Section<'_, '_> {
    fn drop(&mut self) {
        for (key, _) in std::mem::take(&mut self.table) {
            let message = match nearest(key.get_ref(), &self.known) {
                Some(known) => format!("is not a known key; did you mean {known}?"),
                None => format!("is not a known key; the keys here are {}", self.known.join(", ")),
            };
            self.report.error(Some(&key.span()), &self.path_of(key.get_ref()), message);
        }
    }
}

/// One value and where it stands.
pub(super) struct Field<'r, 's> {
    report: &'r Report<'s>,
    path: String,
    value: Spanned<DeValue<'s>>,
}

/// Where a value stands, kept after the value was read.
pub(super) struct Place<'r, 's> {
    report: &'r Report<'s>,
    path: String,
    place: Range<usize>,
}

impl Place<'_, '_> {
    /// Reports an error about the value.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.report.error(Some(&self.place), &self.path, message);
    }
}

impl<'r, 's> Field<'r, 's> {
    fn new(report: &'r Report<'s>, path: String, value: Spanned<DeValue<'s>>) -> Self {
        report.remember(&path, &value.span());
        Self { report, path, value }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Place<'r, 's> {
        Place { report: self.report, path: self.path.clone(), place: self.value.span() }
    }

    /// Reports an error about this value.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.report.error(Some(&self.value.span()), &self.path, message);
    }

    fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        self.error(format!("must be {wanted}, and is {}", with_article(self.value.get_ref().type_str())));
        None
    }

    /// A string.
    pub(super) fn string(&self) -> Option<Cow<'s, str>> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.clone()),
            _ => self.wrong_type("a string in quotes"),
        }
    }

    /// A string that `read` understands; its error is reported.
    pub(super) fn parsed<T, E: Display>(&self, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.string()?;
        read(&text).map_err(|error| self.error(error.to_string())).ok()
    }

    /// A whole number within bounds.
    pub(super) fn number<T: TryFrom<u64>>(&self, bounds: &RangeInclusive<u64>) -> Option<T> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.wrong_type("a whole number");
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let value = value.filter(|value| bounds.contains(value));
        if value.is_none() {
            self.error(format!("{number} is out of bounds: from {} to {}", bounds.start(), bounds.end()));
        }
        T::try_from(value?).ok()
    }

    /// A size within bounds.
    pub(super) fn size(&self, bounds: &RangeInclusive<u64>) -> Option<u64> {
        if !self.value.get_ref().is_str() {
            return self.wrong_type("a size in quotes, such as \"64KiB\"");
        }
        let size = self.parsed(super::size::parse_size)?;
        if bounds.contains(&size) {
            return Some(size);
        }
        let [least, most] = [bounds.start(), bounds.end()].map(|&bytes| super::display_size(bytes));
        self.error(format!("{} is out of bounds: from {least} to {most}", super::display_size(size)));
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|&(_, value)| value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|&(word, _)| word).collect();
            let hint =
                nearest(&text, &words).map_or(String::new(), |word| format!("; did you mean {word:?}?"));
            self.error(format!("{text:?} is none of {}{hint}", words.join(", ")));
        }
        found
    }

    /// The items of an array, each with its own path.
    pub(super) fn items(self) -> Option<Vec<Self>> {
        if !self.value.get_ref().is_array() {
            return self.wrong_type("a list in brackets");
        }
        let Self { report, path, value } = self;
        let DeValue::Array(array) = value.into_inner() else { return None };
        let items = array.into_iter().enumerate();
        Some(items.map(|(index, value)| Self::new(report, format!("{path}[{index}]"), value)).collect())
    }

    /// A list without repetition of what `read` makes of each item; an empty one is an error.
    pub(super) fn distinct<T: PartialEq + Display>(
        self,
        what_empty_means: &str,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let place = self.place();
        let items = self.items()?;
        if items.is_empty() {
            place.error(format!("is empty; {what_empty_means}"));
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for item in &items {
            let Some(value) = read(item) else { continue };
            if values.contains(&value) {
                item.error(format!("{value} stands here twice"));
            } else {
                values.push(value);
            }
        }
        (!values.is_empty()).then_some(values)
    }

    /// A table.
    pub(super) fn section(self) -> Option<Section<'r, 's>> {
        if !self.value.get_ref().is_table() {
            return self.wrong_type("a table");
        }
        let Self { report, path, value } = self;
        let place = Some(value.span());
        let DeValue::Table(table) = value.into_inner() else { return None };
        Some(Section { report, path, place, table, known: Vec::new() })
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The known word that a misspelt one most likely stands for, if any is near enough.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near_enough = (word.chars().count() / 3).max(1);
    let distances = known.iter().map(|candidate| (edit_distance(word, candidate), *candidate));
    distances.filter(|&(distance, _)| distance <= near_enough).min().map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or replace between two words (Levenshtein).
fn edit_distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other_letter) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(letter != other_letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(nearest("ring_entrys", &["frames", "ring_entries"]), Some("ring_entries"));
        assert_eq!(nearest("prot", &["port", "protocol"]), None, "two letters away of four");
        assert_eq!(nearest("ports", &["port", "protocol"]), Some("port"));
        assert_eq!(nearest("colour", &["port", "protocol"]), None);
    }
}
