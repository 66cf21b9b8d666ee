//! Losses, initializers and metrics in files: a name, or a table with a `type` and settings.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::words::nearest;

/// A name with settings, as it was written.
pub(crate) struct Named {
    pub(crate) name: String,
    settings: Vec<(String, Setting)>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, a list of numbers, or a name in quotes")]
enum Setting {
    Number(f64),
    Numbers(Vec<f64>),
    Text(String),
}

impl Named {
    /// Takes a number out.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Number(value)) => Ok(Some(value)),
            Some(_) => Err(format!("`{key}` must be a number")),
        }
    }

    /// Takes a list of numbers out.
    pub(crate) fn numbers(&mut self, key: &str) -> Result<Option<Vec<f64>>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Numbers(values)) => Ok(Some(values)),
            Some(_) => Err(format!("`{key}` must be a list of numbers")),
        }
    }

    /// Takes a word out.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Text(value)) => Ok(Some(value)),
            Some(_) => Err(format!("`{key}` must be a name in quotes")),
        }
    }

    fn take(&mut self, key: &str) -> Option<Setting> {
        let at = self.settings.iter().position(|(known, _)| known == key)?;
        Some(self.settings.remove(at).1)
    }

    /// Refuses what was not taken: `known` are the settings of `name`.
    pub(crate) fn finish(self, name: &str, known: &[&str]) -> Result<(), String> {
        match (self.settings.first(), known) {
            (None, _) => Ok(()),
            (Some((key, _)), []) => Err(format!("unknown field `{key}`, {name} has no settings")),
            (Some((key, _)), known) => {
                Err(format!("unknown field `{key}`, {name} takes {}", known.join(", ")))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamedVisitor)
    }
}

struct NamedVisitor;

impl<'de> Visitor<'de> for NamedVisitor {
    type Value = Named;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name, or a table with a type and settings")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Named, E> {
        Ok(Named { name: name.to_string(), settings: Vec::new() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let mut name = None;
        let mut settings = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Setting>()? {
            match value {
                Setting::Text(text) if key == "type" => name = Some(text),
                value => settings.push((key, value)),
            }
        }
        Ok(Named { name: name.ok_or_else(|| A::Error::missing_field("type"))?, settings })
    }
}

/// The message for a name that nothing has: the nearest of `all` names, or the list of the `main` ones.
pub(crate) fn unknown(what: &str, name: &str, all: &[&str], main: &[&str]) -> String {
    let mut near = nearest(name, all);
    // Keras' names are often Kiln's
    near.dedup();
    let hint = match near.as_slice() {
        [] => format!("there are {}", main.join(", ")),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    format!("there is no {what} `{name}`; {hint}")
}
