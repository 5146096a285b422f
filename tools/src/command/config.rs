//! `config`: what is in force and where it comes from.

use serde_json::{Value, json};

use crate::cli::{ConfigCommand, Globals};
use crate::error::{CliError, Code};
use crate::output::{self, Format};
use crate::settings::{self, Flags, Settings};

pub(super) fn run(globals: &Globals, what: &ConfigCommand) -> Result<(), CliError> {
    match what {
        ConfigCommand::Show { origin, secrets } => {
            let mut settings = settings::load(globals, &Flags::new(globals))?;
            if !secrets {
                settings.config = settings.config.redacted();
            }
            if *origin { origins(globals.output, &settings) } else { show(globals.output, &settings) }
        }
        ConfigCommand::Check { file } => {
            settings::load_file(file)?;
            let item = json!({ "file": file.display().to_string(), "valid": true });
            match globals.output {
                Format::Table => output::text(&format!("{}: valid", file.display())),
                _ => output::line(&item),
            }
        }
    }
}

fn show(format: Format, settings: &Settings) -> Result<(), CliError> {
    match format {
        Format::Table => {
            let text = toml::to_string(&settings.config);
            output::text(&text.map_err(|e| CliError::new(Code::Failed, format!("cannot encode: {e}")))?)
        }
        Format::Json => output::document(&settings.config),
        Format::Ndjson => output::line(&settings.config),
    }
}

/// One row for each setting.
fn origins(format: Format, settings: &Settings) -> Result<(), CliError> {
    let config = serde_json::to_value(&settings.config).unwrap_or_default();
    let rows: Vec<_> = settings
        .origins
        .iter()
        .map(|(key, origin)| {
            let (section, name) = key.split_once('.').unwrap_or((key, ""));
            json!({ "key": key, "value": config[section][name], "origin": origin })
        })
        .collect();
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    output::list(format, &rows, &["key", "value", "origin"], |row| {
        vec![output::cell(row.get("key")), text(&row["value"]), output::cell(row.get("origin"))]
    })
}
