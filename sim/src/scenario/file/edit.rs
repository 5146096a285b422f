//! Overrides: values in the place of what a file says. Comments and order stay.

use toml_edit::{DocumentMut, Item, Table, Value};

use super::{Override, Problem};

/// The text with all overrides applied, and what could not be applied.
pub(super) fn apply(text: &str, overrides: &[Override]) -> (String, Vec<Problem>) {
    if overrides.is_empty() {
        return (text.to_owned(), Vec::new());
    }
    let mut document: DocumentMut = match text.parse() {
        Ok(document) => document,
        Err(error) => {
            let problem = Problem::new("", error.message(), "correct the TOML; see https://toml.io");
            return (text.to_owned(), vec![problem]);
        }
    };
    let mut problems = Vec::new();
    for set in overrides {
        let path = normal(&set.path);
        if let Err(message) = apply_one(document.as_item_mut(), &path, value_of(&set.value)) {
            problems.push(Problem::new(path, message, "set a key of a section that exists: `section.key`"));
        }
    }
    (document.to_string(), problems)
}

/// `faults.0.share` as `faults[0].share`.
pub(super) fn normal(path: &str) -> String {
    let mut normal = String::new();
    for part in path.split('.').map(str::trim) {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            normal.push_str(&format!("[{part}]"));
        } else {
            if !normal.is_empty() {
                normal.push('.');
            }
            normal.push_str(part);
        }
    }
    normal
}

fn value_of(text: &str) -> Value {
    text.trim().parse().unwrap_or_else(|_| Value::from(text))
}

fn apply_one(root: &mut Item, path: &str, value: Value) -> Result<(), String> {
    let parts: Vec<&str> = path.split(['.', '[']).map(|part| part.trim_end_matches(']')).collect();
    let Some((last, sections)) = parts.split_last() else { return Ok(()) };
    if parts.iter().any(|part| part.is_empty()) {
        return Err("is no key".to_owned());
    }
    let mut item = root;
    for part in sections {
        item = step(item, part)?;
    }
    if let (Ok(index), Some(list)) = (last.parse::<usize>(), item.as_array_mut()) {
        let place = list.get_mut(index).ok_or_else(|| format!("there is no item {index}"))?;
        *place = value;
        return Ok(());
    }
    let table = item.as_table_like_mut().ok_or("is no section")?;
    let mut value = value;
    match table.get_mut(last).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(last, Item::Value(value));
        }
    }
    Ok(())
}

/// One step down; a section that is missing comes into being.
fn step<'a>(item: &'a mut Item, part: &str) -> Result<&'a mut Item, String> {
    if let Ok(index) = part.parse::<usize>() {
        return item.get_mut(index).ok_or_else(|| format!("there is no item {index}"));
    }
    let table = item.as_table_like_mut().ok_or("is no section")?;
    if !table.contains_key(part) {
        table.insert(part, Item::Table(Table::new()));
    }
    table.get_mut(part).ok_or_else(|| "is no section".to_owned())
}
