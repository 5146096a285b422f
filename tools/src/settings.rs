//! The configuration in force: built in < file < environment < flags.
//!
//! Every layer becomes a list of `(section.key, value)` that remembers where each value was written; the
//! `config` crate lays them over each other. A key that does not exist is an error in every layer, and so
//! is a value of the wrong type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Map, Source, Value, ValueKind};
use omnimesh_node::data_dir;
use omnimesh_protocol::config::{Config, Problem};
use omnimesh_sim::suggest::nearest;
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use crate::cli::Globals;
use crate::error::{CliError, Code};
use crate::files;

/// Longest configuration file: with all settings and what there is to say about them it is a fiftieth of that.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What stands before the names of environment variables.
const PREFIX: &str = "OMNIMESH_";
/// Variables that are flags, not settings.
const NOT_SETTINGS: [&str; 4] =
    ["OMNIMESH_CONFIG", "OMNIMESH_DATA_DIR", "OMNIMESH_API_URL", "OMNIMESH_TOKEN_FILE"];

/// A valid configuration and where its values come from.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The values.
    pub(crate) config: Config,
    /// For each `section.key`: `built in`, `file F:LINE`, `environment V` or `flag --F`.
    pub(crate) origins: BTreeMap<String, String>,
}

/// Settings given by flags.
#[derive(Debug, Default)]
pub(crate) struct Flags(Layer);

impl Flags {
    /// Those that every command takes.
    pub(crate) fn new(globals: &Globals) -> Self {
        let mut flags = Flags::default();
        flags.text("--log-level", "log.level", globals.log_level.as_deref());
        flags.text("--log-format", "log.format", globals.log_format.as_deref());
        flags
    }

    /// A flag with one value.
    pub(crate) fn text(&mut self, flag: &str, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(key, &format!("flag {flag}"), value);
        }
    }

    /// A flag that may be repeated; none leaves the lower layers in force.
    pub(crate) fn list(&mut self, flag: &str, key: &str, values: &[String]) {
        if !values.is_empty() {
            self.0.push(key, &format!("flag {flag}"), values.to_vec());
        }
    }
}

/// Loads all layers and checks the whole.
pub(crate) fn load(globals: &Globals, flags: &Flags) -> Result<Settings, CliError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    load_from(globals.config.as_deref(), environment, flags).map_err(|error| match error.code {
        // Nothing else is looked for.
        Code::NotFound => error.hint("check --config and OMNIMESH_CONFIG"),
        _ => error,
    })
}

/// Loads a file over what is built in, and nothing else.
pub(crate) fn load_file(file: &Path) -> Result<Settings, CliError> {
    load_from(Some(file), std::iter::empty(), &Flags::default())
}

/// The data directory to use.
pub(crate) fn data_dir(globals: &Globals) -> Result<PathBuf, CliError> {
    globals.data_dir.clone().or_else(data_dir::default_path).ok_or_else(|| {
        CliError::new(Code::Usage, "no data directory: neither XDG_DATA_HOME nor HOME is set")
            .hint("name one with --data-dir")
    })
}

fn load_from(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Settings, CliError> {
    let schema = Schema::new();
    let mut file_layer = file.map(|file| schema.file(file)).transpose()?.unwrap_or_default();
    let mut environment_layer = schema.environment(environment);
    let mut faults = std::mem::take(&mut file_layer.faults);
    faults.append(&mut environment_layer.faults);
    let merged = config::Config::builder()
        .add_source(schema.built_in())
        .add_source(file_layer)
        .add_source(environment_layer)
        .add_source(flags.0.clone())
        .build()
        .map_err(|error| CliError::new(Code::ConfigInvalid, error.to_string()))?;
    let root = merged.cache.clone();
    let origin = |value: &Value| value.origin().unwrap_or_default().to_owned();
    let origins = leaves(&root).map(|(key, value)| (key, origin(value))).collect();
    let config: Config = match merged.try_deserialize() {
        Ok(config) => config,
        Err(error) => without_strangers(&schema, &root, &mut faults)
            .ok_or_else(|| CliError::new(Code::ConfigInvalid, error.to_string()))?,
    };
    // What is left of a configuration with faults is looked at as well, so that all are told at once.
    if let Err(invalid) = config.validate() {
        faults.extend(invalid.problems.iter().map(|problem| invalid_error(problem, &origins)));
    }
    together(&faults)?;
    Ok(Settings { config, origins })
}

/// All that is wrong, as one error; of use if the flags alone are to blame.
fn together(faults: &[CliError]) -> Result<(), CliError> {
    if faults.is_empty() {
        return Ok(());
    }
    let is_usage = faults.iter().all(|fault| fault.code == Code::Usage);
    let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    let mut hints: Vec<&str> = faults.iter().filter_map(|fault| fault.hint.as_deref()).collect();
    hints.dedup();
    let code = if is_usage { Code::Usage } else { Code::ConfigInvalid };
    Err(CliError::new(code, messages.join("\n")).hint(hints.join("\n")))
}

/// One layer.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// What it sets, each with its origin.
    values: Vec<(String, Value)>,
    /// What it has that is no setting, or not of the setting's type.
    faults: Vec<CliError>,
}

impl Layer {
    fn push(&mut self, key: &str, origin: &str, kind: impl Into<ValueKind>) {
        self.values.push((key.to_owned(), Value::new(Some(&origin.to_owned()), kind)));
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.iter().cloned().collect())
    }
}

/// Which keys there are, and of what type: the defaults tell.
struct Schema {
    defaults: BTreeMap<String, Json>,
}

impl Schema {
    fn new() -> Self {
        let defaults = serde_json::to_value(Config::default()).expect("the defaults are plain data");
        let mut keys = BTreeMap::new();
        for (section, values) in defaults.as_object().into_iter().flatten() {
            for (key, value) in values.as_object().into_iter().flatten() {
                keys.insert(format!("{section}.{key}"), value.clone());
            }
        }
        Schema { defaults: keys }
    }

    fn sections(&self) -> impl Iterator<Item = &str> {
        self.defaults.keys().filter_map(|key| Some(key.split_once('.')?.0))
    }

    fn built_in(&self) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in &self.defaults {
            layer.push(key, "built in", json_kind(value));
        }
        layer
    }

    fn file(&self, path: &Path) -> Result<Layer, CliError> {
        let text = files::text(path, FILE_BYTES_MAX, "no configuration is so long: name another file")?;
        self.parse(&text, &path.display().to_string())
    }

    fn parse(&self, text: &str, name: &str) -> Result<Layer, CliError> {
        let line_at = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let root = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            CliError::new(Code::ConfigInvalid, format!("{name}:{line}: {}", error.message()))
                .hint("correct that line: a file has lines such as [log] and level = \"info\"; `omnimesh config show` prints a whole one")
        })?;
        let mut layer = Layer::default();
        for (section, values) in root.get_ref() {
            let place = format!("{name}:{}", line_at(section.span().start));
            let section = section.get_ref().as_ref();
            let values = match values.get_ref() {
                DeValue::Table(values) if self.sections().any(|known| known == section) => values,
                _ => {
                    layer.faults.push(self.unknown(&place, section, ""));
                    continue;
                }
            };
            for (key, value) in values {
                let place = format!("{name}:{}", line_at(key.span().start));
                let key = format!("{section}.{}", key.get_ref());
                let kind = |default| toml_kind(value.get_ref()).filter(|kind| fits(default, kind));
                match self.defaults.get(&key).map(|default| (default, kind(default))) {
                    Some((_, Some(kind))) => layer.push(&key, &format!("file {place}"), kind),
                    Some((default, None)) => layer.faults.push(wrong_type(&place, &key, default)),
                    None => layer.faults.push(self.unknown(&place, &key, "")),
                }
            }
        }
        Ok(layer)
    }

    fn environment(&self, variables: impl Iterator<Item = (String, String)>) -> Layer {
        let mut layer = Layer::default();
        let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, text) in variables {
            let place = format!("environment variable {name}");
            let rest = name[PREFIX.len()..].to_lowercase();
            let Some((section, key)) = rest.split_once("__") else {
                // Orchestrators set variables such as OMNIMESH_PORT for a service of that name, so that other
                // names cannot be errors; but a setting with one underscore too few is, and a flag's mistyped name.
                let key = rest.replacen('_', ".", 1);
                let meant = nearest_flag(&name);
                if self.defaults.contains_key(&key) {
                    layer.faults.push(self.unknown(&place, &key, "__"));
                } else if let Some(meant) = meant {
                    let fault = CliError::new(Code::ConfigInvalid, format!("{place}: no such variable"));
                    layer.faults.push(fault.hint(format!("did you mean `{meant}`?")));
                }
                continue;
            };
            let key = format!("{section}.{key}");
            match self.defaults.get(&key).map(|default| (default, text_kind(default, &text))) {
                Some((_, Some(kind))) => layer.push(&key, &format!("environment {name}"), kind),
                Some((default, None)) => layer.faults.push(wrong_type(&place, &key, default)),
                None => layer.faults.push(self.unknown(&place, &key, "__")),
            }
        }
        layer
    }

    /// An unknown key, with the known one that is most like it. `separator` is `__` for variables.
    fn unknown(&self, place: &str, key: &str, separator: &str) -> CliError {
        let error = CliError::new(Code::ConfigInvalid, format!("{place}: unknown setting `{key}`"));
        let name = |known: &String| match separator {
            "" => format!("`{known}`"),
            _ => format!("`{PREFIX}{}`", known.replacen('.', separator, 1).to_uppercase()),
        };
        let names: Vec<_> = self.similar(key).iter().map(name).collect();
        match names.as_slice() {
            [] => error.hint("`omnimesh config show` lists all settings"),
            names => error.hint(format!("did you mean {}?", names.join(" or "))),
        }
    }

    /// The known keys that may be meant.
    fn similar(&self, key: &str) -> Vec<String> {
        if self.defaults.contains_key(key) {
            return vec![key.to_owned()];
        }
        // The right name in the wrong section, or in none.
        let name = key.rsplit('.').next().unwrap_or(key);
        let elsewhere = self.defaults.keys().filter(|known| known.rsplit('.').next() == Some(name));
        let elsewhere: Vec<_> = elsewhere.cloned().collect();
        let Some((section, name)) = key.split_once('.') else {
            let section = nearest(key, self.sections()).map(str::to_owned);
            return section.map_or(elsewhere, |section| vec![section]);
        };
        if !elsewhere.is_empty() {
            return elsewhere;
        }
        let Some(section) = nearest(section, self.sections()) else { return Vec::new() };
        let prefix = format!("{section}.");
        let names = self.defaults.keys().filter_map(|known| known.strip_prefix(&prefix));
        nearest(name, names).map(|found| format!("{section}.{found}")).into_iter().collect()
    }
}

/// The variable of a flag that is like this one and not the same.
fn nearest_flag(name: &str) -> Option<&'static str> {
    let bare = |name: &'static str| &name[PREFIX.len()..];
    let meant = nearest(&name[PREFIX.len()..], NOT_SETTINGS.map(bare))?;
    NOT_SETTINGS.into_iter().find(|flag| bare(flag) == meant && *flag != name)
}

/// Every `section.key` and its value.
fn leaves(root: &Value) -> impl Iterator<Item = (String, &Value)> {
    entries(root).flat_map(|(section, values)| {
        entries(values).map(move |(key, value)| (format!("{section}.{key}"), value))
    })
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let table = match &value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    };
    table.into_iter().flatten()
}

/// The configuration without values of the right type that are none of the setting, such as `log.format = "xml"`:
/// those become faults.
///
/// Each is tried alone, because the error of the whole names neither place nor choices well.
fn without_strangers(schema: &Schema, root: &Value, faults: &mut Vec<CliError>) -> Option<Config> {
    let mut rest = serde_json::Map::new();
    for (key, value) in leaves(root) {
        let Some((section, name)) = key.split_once('.') else { continue };
        let alone = serde_json::json!({ section: { name: to_json(value) } });
        if let Err(error) = serde_json::from_value::<Config>(alone) {
            let origin = value.origin().unwrap_or_default();
            let message = format!("{key}: {} ({origin})", with_value(&error.to_string(), section, value));
            let default = schema.defaults.get(&key).unwrap_or(&Json::Null);
            faults.push(CliError::new(blame(origin), message).hint(usual(&key, default)));
        } else if let Json::Object(section) = rest.entry(section).or_insert_with(|| serde_json::json!({})) {
            section.insert(name.to_owned(), to_json(value));
        }
    }
    serde_json::from_value(Json::Object(rest)).ok()
}

/// What is wrong with a value, and the value, unless that is said already or might be a secret.
fn with_value(error: &str, section: &str, value: &Value) -> String {
    let error = error.replace("unknown variant", "there is no");
    let error = error.replace("invalid socket address syntax", "no IP address with a port");
    match &value.kind {
        ValueKind::String(text) if section != "mesh" && !error.contains(text.as_str()) => {
            format!("{error}: {text:?}")
        }
        _ => error,
    }
}

fn invalid_error(problem: &Problem, origins: &BTreeMap<String, String>) -> CliError {
    let origin = origins.get(problem.place).map_or("built in", String::as_str);
    let Problem { place, value, message, remedy } = problem;
    CliError::new(blame(origin), format!("{place} = {value}: {message} ({origin})")).hint(remedy)
}

fn blame(origin: &str) -> Code {
    if origin.starts_with("flag ") { Code::Usage } else { Code::ConfigInvalid }
}

/// Says what was expected and not what was found, which might be a secret.
fn wrong_type(place: &str, key: &str, default: &Json) -> CliError {
    let expected = match default {
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a whole number",
        Json::Array(_) => "a list of strings",
        _ => "a string",
    };
    CliError::new(Code::ConfigInvalid, format!("{place}: {key} must be {expected}")).hint(usual(key, default))
}

/// What a setting is that nobody has set: an example, too.
fn usual(key: &str, default: &Json) -> String {
    match default {
        Json::Null => format!("it is not set unless you do: leave {key} out, or correct it"),
        default => format!("write it as {default}, which is what {key} is unless set"),
    }
}

fn fits(default: &Json, kind: &ValueKind) -> bool {
    match (default, kind) {
        (Json::Bool(_), ValueKind::Boolean(_))
        | (Json::Number(_), ValueKind::I64(_))
        | (Json::String(_) | Json::Null, ValueKind::String(_)) => true,
        (Json::Array(_), ValueKind::Array(items)) => {
            items.iter().all(|item| matches!(item.kind, ValueKind::String(_)))
        }
        _ => false,
    }
}

fn toml_kind(value: &DeValue<'_>) -> Option<ValueKind> {
    Some(match value {
        DeValue::String(text) => ValueKind::String(text.as_ref().to_owned()),
        DeValue::Integer(number) => {
            ValueKind::I64(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Boolean(flag) => ValueKind::Boolean(*flag),
        DeValue::Array(items) => {
            let kinds = items.iter().map(|item| toml_kind(item.get_ref()));
            ValueKind::Array(kinds.map(|kind| Some(Value::new(None, kind?))).collect::<Option<_>>()?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

fn text_kind(default: &Json, text: &str) -> Option<ValueKind> {
    Some(match default {
        Json::Bool(_) => ValueKind::Boolean(text.parse().ok()?),
        Json::Number(_) => ValueKind::I64(text.parse().ok()?),
        Json::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect::<Vec<_>>().into()
        }
        _ => ValueKind::String(text.to_owned()),
    })
}

fn to_json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Boolean(flag) => (*flag).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::String(text) => text.as_str().into(),
        ValueKind::Array(items) => items.iter().map(to_json).collect(),
        _ => Json::Null,
    }
}

fn json_kind(value: &Json) -> ValueKind {
    match value {
        Json::Bool(flag) => ValueKind::Boolean(*flag),
        Json::Number(number) => number.as_i64().map_or(ValueKind::Nil, ValueKind::I64),
        Json::String(text) => ValueKind::String(text.clone()),
        Json::Array(items) => {
            ValueKind::Array(items.iter().map(|item| Value::new(None, json_kind(item))).collect())
        }
        Json::Null | Json::Object(_) => ValueKind::Nil,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Settings, CliError> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("node.toml");
        fs::write(&path, file).unwrap();
        let variables = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load_from(Some(&path), variables, flags)
    }

    fn hint_of(file: &str) -> String {
        let error = load(file, &[], &Flags::default()).unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid, "{error:?}");
        format!("{} | {}", error.message, error.hint.unwrap_or_default())
    }

    #[test]
    fn layers_lie_over_each_other() {
        let mut flags = Flags::default();
        flags.text("--api", "api.listen", Some("127.0.0.1:1"));
        let settings = load(
            "[api]\nlisten = \"127.0.0.1:3\"\nbody_bytes_max = 2048\n[node]\n\nphase_interval = 7\ncache_size = 8\n",
            &[("OMNIMESH_API__LISTEN", "127.0.0.1:2"), ("OMNIMESH_NODE__CACHE_SIZE", "9"), ("PATH", "x")],
            &flags,
        )
        .unwrap();
        let config = &settings.config;
        assert_eq!(config.api.listen.port(), 1);
        assert_eq!((config.node.phase_interval, config.node.cache_size), (7, 9));
        assert_eq!(config.gossip, Config::default().gossip);
        let origin = |key: &str| settings.origins[key].as_str();
        assert_eq!(origin("api.listen"), "flag --api");
        assert_eq!(origin("node.cache_size"), "environment OMNIMESH_NODE__CACHE_SIZE");
        assert!(origin("node.phase_interval").ends_with("node.toml:6"));
        assert_eq!(origin("gossip.mesh_n"), "built in");
    }

    #[test]
    fn the_example_shows_every_setting_and_changes_none() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/node.toml");
        assert_eq!(load_file(&path).unwrap().config, Config::default());
        let text = fs::read_to_string(path).unwrap();
        for key in Schema::new().defaults.keys() {
            let name = key.split('.').nth(1).unwrap();
            assert!(
                text.contains(&format!("\n{name} = ")) || text.contains(&format!("\n# {name} = ")),
                "{key}"
            );
        }
    }

    #[test]
    fn without_any_layer_it_is_the_default() {
        let settings = load("", &[], &Flags::default()).unwrap();
        assert_eq!(settings.config, Config::default());
    }

    #[test]
    fn text_stays_text() {
        let settings = load(
            "",
            &[
                ("OMNIMESH_MESH__OPEN", "007"),
                ("OMNIMESH_API__ALLOWED_HOSTS", "a, b,"),
                ("OMNIMESH_NETWORK__MDNS", "true"),
            ],
            &Flags::default(),
        )
        .unwrap();
        assert_eq!(settings.config.mesh.open.as_deref(), Some("007"));
        assert_eq!(settings.config.api.allowed_hosts, ["a", "b"]);
        assert!(settings.config.network.mdns);
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        for (file, says) in [
            (
                "[node]\nphase_intervall = 1",
                "node.toml:2: unknown setting `node.phase_intervall` | did you mean `node.phase_interval`?",
            ),
            ("[netwrok]\nmdns = true", "node.toml:1: unknown setting `netwrok` | did you mean `network`?"),
            ("[node]\nlisten = []", "`node.listen` | did you mean `api.listen` or `network.listen`?"),
            ("mdns = true", "unknown setting `mdns` | did you mean `network.mdns`?"),
            ("[node]\nx = 1", "`omnimesh config show` lists all settings"),
        ] {
            let error = hint_of(file);
            let (file_says, hint_says) = says.split_once(" | ").unwrap_or(("", says));
            assert!(error.contains(file_says) && error.contains(hint_says), "{error}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let file =
            "[network]\nmdns = 1\n[netwrok]\nmdns = true\n[node]\nphase_intervall = 1\nstep_interval_ms = 0
[api]\nlisten = \"here\"";
        let error = load(file, &[("OMNIMESH_NODE__CACHE_SIZE", "x")], &Flags::default()).unwrap_err();
        let lines: Vec<_> = error.message.lines().collect();
        let says = [
            "node.toml:2: network.mdns",
            "node.toml:3: ",
            "node.toml:6: ",
            "OMNIMESH_NODE__CACHE_SIZE",
            "api.listen: ",
            "node.step_interval_ms = 0: ",
        ];
        assert_eq!(lines.len(), says.len(), "{error}");
        for (line, says) in lines.iter().zip(says) {
            assert!(line.contains(says), "{line}");
        }
        assert_eq!(error.hint.unwrap().lines().count(), says.len());
    }

    #[test]
    fn wrong_types_name_the_key_and_not_the_value() {
        for (file, says) in [
            ("[node]\n\ncache_size = \"8\"", "node.toml:3: node.cache_size must be a whole number"),
            ("[node]\ncache_size = 1.5", "node.cache_size must be a whole number"),
            ("[network]\nmdns = 1", "network.mdns must be true or false"),
            ("[network]\nlisten = \"/ip4\"", "network.listen must be a list of strings"),
            ("[mesh]\nsecret = 1234", "mesh.secret must be a string"),
            ("[node]\ncache_size = -1", "node.cache_size"),
            ("[node]\ncache_size = -1\n[log]\nformat = \"xml\"", "node.toml:4"),
            ("[log]\nformat = \"xml\"", "log.format: there is no `xml`, expected `text` or `json` (file "),
            ("[api]\nlisten = \"here\"", "api.listen: no IP address with a port: \"here\" (file "),
            ("[api]\nlisten = \"here\"", "write it as \"127.0.0.1:7412\""),
            ("[node]\n\ncache_size = \"8\"", "which is what node.cache_size is unless set"),
            ("[mesh]\nsecret = 1234", "leave mesh.secret out, or correct it"),
            ("[node\n", "`omnimesh config show` prints a whole one"),
            ("[network]\nallow = [\"me\"]", "network.allow: not the peer id"),
            ("[node\n", "node.toml:1: "),
        ] {
            let error = hint_of(file);
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("1234"), "{error}");
        }
    }

    #[test]
    fn variables_are_checked_too() {
        let error = |name: &str, value: &str| {
            let error = load("", &[(name, value)], &Flags::default()).unwrap_err();
            format!("{} | {}", error.message, error.hint.unwrap_or_default())
        };
        assert!(
            error("OMNIMESH_NODE__CASHE_SIZE", "1").contains("did you mean `OMNIMESH_NODE__CACHE_SIZE`?")
        );
        assert!(error("OMNIMESH_NODE_CACHE_SIZE", "1").contains("did you mean `OMNIMESH_NODE__CACHE_SIZE`?"));
        assert!(error("OMNIMESH_NODE__CACHE_SIZE", "x").contains("node.cache_size must be a whole number"));
        assert!(error("OMNIMESH_DATADIR", "/srv").contains("did you mean `OMNIMESH_DATA_DIR`?"));
        load("", &[("OMNIMESH_DATA_DIR", "/srv"), ("OMNIMESH_CONFIG", "x")], &Flags::default()).unwrap();
        // What an orchestrator sets for a service of that name is none of our business.
        load("", &[("OMNIMESH_PORT", "tcp://10.0.0.1:1"), ("OMNIMESH_SERVICE_HOST", "x")], &Flags::default())
            .unwrap();
    }

    #[test]
    fn a_bad_flag_is_a_matter_of_usage() {
        let mut flags = Flags::default();
        flags.list("--bootstrap", "network.bootstrap", &["/ip4/10.0.0.1/tcp/7411".to_owned()]);
        let error = load("", &[], &flags).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.contains("does not end in /p2p/<peer id> (flag --bootstrap)"), "{error}");

        let file = "[network]\nbootstrap = [\"/ip4/10.0.0.1/tcp/7411\"]";
        let error = load(file, &[], &Flags::default()).unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid);

        let mut flags = Flags::default();
        flags.text("--api", "api.listen", Some("nowhere"));
        assert_eq!(load("", &[], &flags).unwrap_err().code, Code::Usage);
    }
}
