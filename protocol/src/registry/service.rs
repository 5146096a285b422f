//! What an entry of kind `service` says, by convention.
//!
//! | field | value |
//! |---|---|
//! | `address` | text, or a list of 1 to 16 texts: multiaddresses (`/ip4/…`) or URLs (`https://…`), of at most 256 bytes |
//! | `metadata` | a map, free; or no such field |
//! | `health` | a map: `status` (`healthy`, `degraded`, `unhealthy` or `unknown`), and where known `step` (integer: when it was checked), `latency_us` (integer), `detail` (text of at most 1,024 bytes); or no such field |
//!
//! Who offers a service puts the entry with a time-to-live, and renews it by updates. Who checks a service updates
//! `health` alone; the author of that field's write is who says so. The registry takes entries that do not follow the
//! convention, too: a node refuses to write them, and a reader skips them.
//!
//! # Not here
//! Checking whether a service is well.

use std::collections::BTreeMap;

use crate::id::Step;

use super::entry::Entry;
use super::fault::Fault;
use super::name::FieldName;
use super::operation::Fields;
use super::value::{Encoded, Value};

/// The kind of services.
pub const KIND: &str = "service";
/// Most addresses of a service.
pub const ADDRESSES_MAX: usize = 16;
/// Longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Longest detail of a health, in bytes.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// The field that says where a service is.
pub const ADDRESS: &str = "address";
/// The field that says more about it.
pub const METADATA: &str = "metadata";
/// The field that says how it is.
pub const HEALTH: &str = "health";

/// How a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthStatus {
    /// Answers as it should.
    Healthy,
    /// Answers, but slowly or not always.
    Degraded,
    /// Does not answer, or wrongly.
    Unhealthy,
    /// Nobody has checked.
    #[default]
    Unknown,
}

impl HealthStatus {
    /// All of them, the best first.
    pub const ALL: [HealthStatus; 4] =
        [HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy, HealthStatus::Unknown];

    /// Its name in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Healthy => "healthy",
            HealthStatus::Degraded => "degraded",
            HealthStatus::Unhealthy => "unhealthy",
            HealthStatus::Unknown => "unknown",
        }
    }
}

/// What somebody found when they checked a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// When it was checked.
    pub step: Option<Step>,
    /// How long it took to answer.
    pub latency_us: Option<u64>,
    /// For people.
    pub detail: Option<String>,
}

/// A service as its entry says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Where it is; at least one.
    pub addresses: Vec<String>,
    /// Anything else.
    pub metadata: BTreeMap<String, Value>,
    /// How it is.
    pub health: Health,
}

/// The entry does not follow the convention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` of a service must be {expected}")]
pub struct ServiceError {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

const ADDRESS_EXPECTED: &str =
    "a multiaddress (/ip4/…) or URL (https://…) of at most 256 bytes, or a list of 1 to 16 of them";
const METADATA_EXPECTED: &str = "a map";
const HEALTH_EXPECTED: &str = "a map with status (healthy, degraded, unhealthy or unknown), and optionally \
                               step, latency_us (integers) and detail (text of at most 1024 bytes)";

impl Service {
    /// Reads the fields of an entry.
    ///
    /// # Errors
    /// The first field that does not follow the convention.
    pub fn from_entry(entry: &Entry) -> Result<Self, ServiceError> {
        Service::from_values(|field| entry.value(field))
    }

    /// Checks fields before they are put.
    ///
    /// # Errors
    /// As [`Service::from_entry`].
    pub fn from_fields(fields: &Fields) -> Result<Self, ServiceError> {
        Service::from_values(|field| {
            fields.iter().find(|(name, _)| name.as_str() == field).map(|(_, value)| value.decode())
        })
    }

    fn from_values(value: impl Fn(&str) -> Option<Value>) -> Result<Self, ServiceError> {
        let metadata = match value(METADATA) {
            None => BTreeMap::new(),
            Some(Value::Map(metadata)) => metadata,
            Some(_) => return Err(ServiceError { field: METADATA, expected: METADATA_EXPECTED }),
        };
        let health = value(HEALTH).map_or(Ok(Health::default()), |value| Health::from_value(&value))?;
        let addresses = value(ADDRESS).and_then(addresses);
        let addresses = addresses.ok_or(ServiceError { field: ADDRESS, expected: ADDRESS_EXPECTED })?;
        Ok(Service { addresses, metadata, health })
    }

    /// The fields that say this.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] or another fault of a value.
    pub fn to_fields(&self) -> Result<Fields, Fault> {
        let addresses = self.addresses.iter().map(|address| Value::from(address.as_str())).collect();
        let mut fields = Fields::from([field(ADDRESS, &Value::List(addresses))?]);
        if !self.metadata.is_empty() {
            fields.extend([field(METADATA, &Value::Map(self.metadata.clone()))?]);
        }
        if self.health != Health::default() {
            fields.extend([field(HEALTH, &self.health.to_value())?]);
        }
        Ok(fields)
    }
}

impl Health {
    /// Reads the field `health`.
    ///
    /// # Errors
    /// If the value does not follow the convention.
    pub fn from_value(value: &Value) -> Result<Self, ServiceError> {
        Health::read(value).ok_or(ServiceError { field: HEALTH, expected: HEALTH_EXPECTED })
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Map(map) = value else { return None };
        let mut health = Health::default();
        let mut has_status = false;
        for (name, value) in map {
            match (name.as_str(), value) {
                ("status", Value::Text(text)) => {
                    health.status = HealthStatus::ALL.into_iter().find(|status| status.as_str() == text)?;
                    has_status = true;
                }
                ("step", Value::Integer(step)) => health.step = Some(Step(u64::try_from(*step).ok()?)),
                ("latency_us", Value::Integer(latency)) => {
                    health.latency_us = Some(u64::try_from(*latency).ok()?);
                }
                ("detail", Value::Text(detail)) if detail.len() <= DETAIL_BYTES_MAX => {
                    health.detail = Some(detail.clone());
                }
                ("status" | "step" | "latency_us" | "detail", _) => return None,
                // What a newer version may add.
                _ => {}
            }
        }
        has_status.then_some(health)
    }

    /// The value of the field `health`. Numbers above 2^63 − 1 become that.
    pub fn to_value(&self) -> Value {
        let integer = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let mut map = BTreeMap::from([("status".to_owned(), Value::from(self.status.as_str()))]);
        map.extend(self.step.map(|step| ("step".to_owned(), integer(step.0))));
        map.extend(self.latency_us.map(|latency| ("latency_us".to_owned(), integer(latency))));
        map.extend(self.detail.as_ref().map(|detail| ("detail".to_owned(), Value::from(detail.as_str()))));
        Value::Map(map)
    }
}

fn field(name: &str, value: &Value) -> Result<(FieldName, Encoded), Fault> {
    Ok((FieldName::new(name)?, value.encode()?))
}

fn addresses(value: Value) -> Option<Vec<String>> {
    let texts = match value {
        Value::List(values) if (1..=ADDRESSES_MAX).contains(&values.len()) => values,
        text @ Value::Text(_) => vec![text],
        _ => return None,
    };
    let address = |value| match value {
        Value::Text(text) if text.len() <= ADDRESS_BYTES_MAX && is_address(&text) => Some(text),
        _ => None,
    };
    texts.into_iter().map(address).collect()
}

fn is_address(text: &str) -> bool {
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    let is_multiaddress = text.len() > 1 && text.starts_with('/');
    (is_url || is_multiaddress) && !text.chars().any(|c| c.is_control() || c == ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, Value)]) -> Result<Service, ServiceError> {
        Service::from_fields(&fields.iter().map(|(name, value)| field(name, value).unwrap()).collect())
    }

    #[test]
    fn a_service_returns() {
        let service = Service {
            addresses: vec!["/ip4/10.0.0.1/tcp/80".to_owned(), "https://example.org/api".to_owned()],
            metadata: BTreeMap::from([("zone".to_owned(), Value::from("eu"))]),
            health: Health {
                status: HealthStatus::Degraded,
                step: Some(Step(7)),
                latency_us: Some(1500),
                detail: Some("slow".to_owned()),
            },
        };
        assert_eq!(Service::from_fields(&service.to_fields().unwrap()), Ok(service));
        let least = read(&[(ADDRESS, Value::from("tcp://10.0.0.1:80"))]).unwrap();
        assert_eq!(least.health.status, HealthStatus::Unknown);
        assert_eq!(Service::from_fields(&least.to_fields().unwrap()), Ok(least));
    }

    #[test]
    fn what_does_not_follow_the_convention_is_named() {
        let address = || (ADDRESS, Value::from("http://x"));
        let map = |pairs: &[(&str, Value)]| {
            Value::Map(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
        };
        let status = || ("status", Value::from("healthy"));
        let cases = [
            (vec![], ADDRESS),
            (vec![(ADDRESS, Value::from("10.0.0.1"))], ADDRESS),
            (vec![(ADDRESS, Value::from("http://a b"))], ADDRESS),
            (vec![(ADDRESS, Value::from("/"))], ADDRESS),
            (vec![(ADDRESS, Value::List(vec![]))], ADDRESS),
            (vec![(ADDRESS, Value::List(vec![Value::from("http://x"); 17]))], ADDRESS),
            (vec![(ADDRESS, Value::from(format!("http://{}", "x".repeat(250)).as_str()))], ADDRESS),
            (vec![address(), (METADATA, Value::from(1))], METADATA),
            (vec![address(), (HEALTH, Value::from("healthy"))], HEALTH),
            (vec![address(), (HEALTH, map(&[]))], HEALTH),
            (vec![address(), (HEALTH, map(&[("status", Value::from("fine"))]))], HEALTH),
            (vec![address(), (HEALTH, map(&[status(), ("step", Value::from(-1))]))], HEALTH),
            (
                vec![
                    address(),
                    (HEALTH, map(&[status(), ("detail", Value::from("x".repeat(1025).as_str()))])),
                ],
                HEALTH,
            ),
        ];
        for (fields, at) in cases {
            assert_eq!(read(&fields).unwrap_err().field, at, "{fields:?}");
        }
        read(&[address(), (HEALTH, map(&[status(), ("later", Value::Null)]))]).unwrap();
    }
}
