//! Streams of events: delivery, lag, and their end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::{Connection, FEED_ITEMS_MAX, PAYLOAD_BYTES_MAX, Rig, eventually};
use crate::api::types::{ErrorCode, Event, Message};

const EVENTS: &str = "/api/v1/channels/news/events";

#[tokio::test]
async fn a_published_message_is_delivered_to_its_channel() {
    let rig = Rig::start();
    let mut news = rig.stream(EVENTS).await;
    let mut other = rig.stream("/api/v1/channels/other/events").await;
    let published = rig.publish("news", "{\"data\":\"grüß\\ngott\"}").await;
    assert_eq!((published.status, &published.json()["recipients"]), (200, &1.into()));
    rig.publish("news", "{\"data_base64\":\"/w==\"}").await;
    rig.publish("other", "{\"data\":\"third\"}").await;
    let mut left = String::new();
    let (name, data) = news.event(&mut left).await.unwrap();
    assert_eq!((name.as_str(), data["data"].as_str()), ("message", Some("grüß\ngott")));
    assert_eq!(data["id"], published.json()["id"]);
    let message: Message = serde_json::from_value(data).unwrap();
    assert_eq!(message.channel, "news");
    let (_, data) = news.event(&mut left).await.unwrap();
    assert_eq!(data["data_base64"], "/w==");
    let (_, data) = other.event(&mut String::new()).await.unwrap();
    assert_eq!(data["data"], "third");
}

#[tokio::test]
async fn the_node_s_events_are_streamed() {
    let rig = Rig::start();
    let mut events = rig.stream("/api/v1/events").await;
    rig.publish("news", "{\"data\":\"x\"}").await;
    let (name, data) = events.event(&mut String::new()).await.unwrap();
    assert_eq!(name, "security");
    assert_eq!(serde_json::from_value::<Event>(data).unwrap().kind, "refused");
}

#[tokio::test]
async fn a_reader_that_lags_is_told_what_it_lost() {
    let rig = Rig::start_with(|config, _| config.requests_per_s = u32::MAX);
    let metrics = async || rig.send(&rig.bare_request("GET", "/metrics", &[], "")).await.body;
    let mut stuck = rig.stream(EVENTS).await;
    // The reader reads nothing, so the buffers on the way to it fill, and then its feed overflows. All others go on.
    let mut fast = rig.stream(EVENTS).await;
    let body = format!("{{\"data\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
    let request = rig.request("POST", "/api/v1/channels/news/messages", &[], &body);
    let mut publisher = Connection::open(rig.address()).await;
    let (mut left, mut sent) = (String::new(), 0_u64);
    while rig.backend.dropped.load(Ordering::SeqCst) < 100 {
        assert!(sent < 40_000, "the sockets hold a few megabytes at most");
        publisher.write(&request).await;
        assert_eq!(publisher.reply(false).await.status, 200);
        sent += 1;
        let (name, data) = fast.event(&mut left).await.unwrap();
        assert_eq!((name.as_str(), data["seq"].as_u64()), ("message", Some(sent)));
    }
    assert!(metrics().await.contains("omnimesh_api_streams 2\n"));
    let (mut seen, mut lost) = (0, 0);
    let mut left = String::new();
    while seen + lost < sent {
        let (name, data) = stuck.event(&mut left).await.unwrap();
        if name == "lagged" {
            lost += data["lost"].as_u64().unwrap();
        } else {
            seen += 1;
            assert_eq!(data["seq"].as_u64(), Some(seen + lost), "the gap is where it is told");
        }
    }
    assert!(lost > 0 && seen >= FEED_ITEMS_MAX as u64, "seen {seen}, lost {lost} of {sent}");
    let counted = format!("omnimesh_api_lagged_total {lost}\n");
    assert!(metrics().await.contains(&counted));
}

#[tokio::test]
async fn a_reader_that_goes_is_unsubscribed_without_news() {
    let rig = Rig::start();
    let stream = rig.stream(EVENTS).await;
    assert_eq!(rig.backend.subscribers("news"), 1);
    drop(stream);
    eventually(|| rig.backend.subscribers("news") == 0).await;
}

#[tokio::test]
async fn streams_are_bounded_and_their_places_come_back() {
    let rig = Rig::start_with(|config, _| config.streams_max = 2);
    let first = rig.stream(EVENTS).await;
    let _second = rig.stream("/api/v1/events").await;
    let reply = rig.get(EVENTS).await;
    let error = reply.assert_error(503, ErrorCode::Overloaded);
    assert!(error.hint.contains("api.streams_max"), "{error:?}");
    drop(first);
    eventually(|| rig.backend.subscribers("news") == 0).await;
    rig.stream(EVENTS).await;
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_is_alive() {
    let rig = Rig::start_with(|_, timeouts| timeouts.stream_keep_alive = Duration::from_millis(20));
    let mut stream = rig.stream(EVENTS).await;
    for _ in 0..3 {
        assert_eq!(stream.chunk().await.as_deref(), Some(": keep-alive\n\n"));
    }
}

#[tokio::test]
async fn head_of_a_stream_subscribes_nobody() {
    let rig = Rig::start();
    for path in [EVENTS, "/api/v1/events"] {
        let reply = rig.send(&rig.request("HEAD", path, &[], "")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"));
    }
    assert_eq!(rig.backend.subscribers("news"), 0);
}

#[tokio::test]
async fn stopping_ends_the_streams_and_frees_the_port() {
    let rig = Rig::start();
    let address = rig.address();
    let mut stream = rig.stream(EVENTS).await;
    // Another reader reads nothing; it must not keep the node from stopping.
    let _stuck = rig.stream("/api/v1/events").await;
    let idle = Connection::open(address).await;
    rig.server.stop().await;
    assert_eq!(stream.chunk().await, None);
    assert_eq!(idle.rest().await, b"");
    std::net::TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn dropping_the_server_stops_it() {
    let rig = Rig::start();
    let stream = rig.stream(EVENTS).await;
    drop(rig.server);
    stream.rest().await;
}

#[test]
fn it_runs_in_an_actix_system_too() {
    actix_rt::System::new().block_on(async {
        let rig = Rig::start();
        assert_eq!(rig.get("/api/v1/status").await.status, 200);
        rig.server.stop().await;
    });
}
