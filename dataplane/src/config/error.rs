//! What is wrong with a configuration: always all of it at once.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// Line it is on, from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// Path of the key, such as `listener[1].allow[0]`; empty for the document itself.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(out, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, when there is one.
    pub file: Option<PathBuf>,
    /// The errors.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn in_file(self, path: &Path) -> Self {
        Self { file: Some(path.to_owned()), ..self }
    }

    pub(super) fn unreadable(path: &Path, source: &std::io::Error) -> Self {
        let message = match source.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no such file; start from dataplane.example.toml".to_owned()
            }
            std::io::ErrorKind::InvalidData => "is not text in UTF-8".to_owned(),
            _ => format!("cannot be read: {source}"),
        };
        Self {
            file: Some(path.to_owned()),
            errors: vec![ConfigError { line: None, key: String::new(), message }],
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().map_or("configuration".into(), Path::to_string_lossy);
        for (index, error) in self.errors.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{file}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
