//! A TOML document whose every part knows its line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{INVENTORY_BYTES_MAX, InvalidInventory};
use crate::annotation::distance;

/// A parsed document and its text.
pub(super) struct Document<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

/// A table of the document, its keys checked.
pub(super) struct Table<'a> {
    document: &'a Document<'a>,
    table: &'a DeTable<'a>,
    start: usize,
}

/// A value of the document.
pub(super) struct Item<'a> {
    document: &'a Document<'a>,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Document<'a> {
    /// Parses a text.
    pub(super) fn parse(text: &'a str) -> Result<Self, InvalidInventory> {
        if text.len() > INVENTORY_BYTES_MAX {
            let problem = format!(
                "the inventory has {} bytes; at most 64 MiB are read",
                text.len()
            );
            return Err(InvalidInventory {
                line: 1,
                key: None,
                problem,
            });
        }
        let root = DeTable::parse(text).map_err(|fault| InvalidInventory {
            line: line_of(text, fault.span().map_or(0, |span| span.start)),
            key: None,
            problem: fault.message().to_owned(),
        })?;
        Ok(Self { text, root })
    }

    /// The outermost table, whose keys are all among `known`.
    pub(super) fn root(&'a self, known: &[&str]) -> Result<Table<'a>, InvalidInventory> {
        self.table(self.root.get_ref(), 0, known)
    }

    /// A table whose keys are all among `known`; the first that is not is the mistake.
    fn table(
        &'a self,
        table: &'a DeTable<'a>,
        start: usize,
        known: &[&str],
    ) -> Result<Table<'a>, InvalidInventory> {
        let unknown = table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()));
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let name = key.get_ref().as_ref();
            let hint = suggestion(name, known.iter().copied());
            return Err(InvalidInventory {
                line: line_of(self.text, key.span().start),
                key: Some(name.to_owned()),
                problem: format!("unknown key {name:?}{hint}"),
            });
        }
        Ok(Table {
            document: self,
            table,
            start,
        })
    }
}

impl<'a> Table<'a> {
    /// The value of a key.
    pub(super) fn find(&self, key: &'a str) -> Option<Item<'a>> {
        let value = self.table.get(key)?;
        Some(Item {
            document: self.document,
            key,
            value,
        })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &'a str) -> Result<Item<'a>, InvalidInventory> {
        self.find(key)
            .ok_or_else(|| self.wrong(key, format!("missing key {key:?}")))
    }

    /// A mistake of the table itself.
    pub(super) fn wrong(&self, key: &str, problem: impl Into<String>) -> InvalidInventory {
        InvalidInventory {
            line: line_of(self.document.text, self.start),
            key: Some(key.to_owned()),
            problem: problem.into(),
        }
    }

    /// Every key with its value, in the order of the text.
    pub(super) fn items(&self) -> Vec<(&'a str, Item<'a>)> {
        let mut items: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| {
                let key = key.get_ref().as_ref();
                (
                    key,
                    Item {
                        document: self.document,
                        key,
                        value,
                    },
                )
            })
            .collect();
        items.sort_by_key(|(_, item)| item.value.span().start);
        items
    }

    /// The tables of an array of tables, none if it is absent.
    pub(super) fn tables(
        &self,
        key: &'a str,
        known: &[&str],
    ) -> Result<Vec<Self>, InvalidInventory> {
        let Some(item) = self.find(key) else {
            return Ok(Vec::new());
        };
        let DeValue::Array(array) = item.value.get_ref() else {
            return Err(item.wrong(format!("{key}: expected an array of tables, [[{key}]]")));
        };
        let read = |value: &'a Spanned<DeValue<'a>>| {
            Item {
                document: self.document,
                key,
                value,
            }
            .table(known)
        };
        array.iter().map(read).collect()
    }
}

impl<'a> Item<'a> {
    /// Where the value begins.
    pub(super) fn line(&self) -> usize {
        line_of(self.document.text, self.value.span().start)
    }

    /// A mistake of this value.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> InvalidInventory {
        let key = Some(self.key.to_owned());
        InvalidInventory {
            line: self.line(),
            key,
            problem: problem.into(),
        }
    }

    /// The value as text.
    pub(super) fn string(&self) -> Result<&'a str, InvalidInventory> {
        self.value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.mistyped("a string"))
    }

    /// The value as text, where a whole number is as good.
    pub(super) fn scalar(&self) -> Result<String, InvalidInventory> {
        match self
            .value
            .get_ref()
            .as_integer()
            .filter(|number| number.radix() == 10)
        {
            Some(number) => Ok(number.as_str().to_owned()),
            None => self.string().map(str::to_owned),
        }
    }

    /// The values of an array, each text.
    pub(super) fn strings(&self) -> Result<Vec<Self>, InvalidInventory> {
        let array = self.value.get_ref().as_array();
        let array = array.ok_or_else(|| self.mistyped("a list"))?;
        let item = |value| Item {
            document: self.document,
            key: self.key,
            value,
        };
        array
            .iter()
            .map(item)
            .map(|item| item.string().map(|_| item))
            .collect()
    }

    /// The value as a table whose keys are all among `known`.
    pub(super) fn table(&self, known: &[&str]) -> Result<Table<'a>, InvalidInventory> {
        let table = self
            .value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.mistyped("a table"))?;
        self.document.table(table, self.value.span().start, known)
    }

    /// The value as the JSON that the preferences document would hold; a date is a string there.
    pub(super) fn to_json(&self) -> serde_json::Value {
        json(self.value.get_ref())
    }

    fn mistyped(&self, expected: &str) -> InvalidInventory {
        let found = self.value.get_ref().type_str();
        self.wrong(format!("{}: expected {expected}, found {found}", self.key))
    }
}

/// A TOML value as JSON.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::String(number.to_string()),
        DeValue::Float(number) => Value::String(number.to_string()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(array) => array.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            Value::Object(pairs.collect())
        }
    }
}

/// `: did you mean "…"?` when one of the known words is a slip away.
pub(super) fn suggestion<'a, I: Iterator<Item = &'a str>>(word: &str, known: I) -> String {
    let most = 1 + word.chars().count() / 4;
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map_or_else(String::new, |(_, candidate)| {
            format!(": did you mean {candidate:?}?")
        })
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
