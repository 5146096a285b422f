//! What the API counts about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The API's metrics; cheap to clone, all clones count into one.
#[derive(Debug, Clone, Default)]
pub struct ApiMetrics {
    requests: Family<RequestLabels, Counter>,
    streams: Gauge,
    lagged: Counter,
}

impl ApiMetrics {
    /// Registers them in a registry with the prefix `omnimesh`: as `omnimesh_api_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("api");
        registry.register("requests", "Requests by route and status", self.requests.clone());
        registry.register("streams", "Open event streams", self.streams.clone());
        registry.register("lagged", "Items dropped because a stream's reader was slow", self.lagged.clone());
    }

    /// Counts a request. `route` is the pattern of a route, so there are few.
    pub(super) fn count_request(&self, route: Option<String>, status: u16) {
        let route = route.unwrap_or_else(|| "none".to_owned());
        self.requests.get_or_create(&RequestLabels { route, status: u32::from(status) }).inc();
    }

    pub(super) fn count_lagged(&self, lost: u64) {
        self.lagged.inc_by(lost);
    }

    pub(super) fn streams(&self) -> &Gauge {
        &self.streams
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u32,
}
