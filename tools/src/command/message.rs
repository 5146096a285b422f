//! `publish` and `subscribe`: ephemeral messages.

use std::io::{self, Read};
use std::time::Duration;

use omnimesh_node::api::types::{Lagged, Message, Payload, PublishRequest, Published};
use omnimesh_protocol::envelope::Channel;
use serde_json::Value;

use super::inspect::typed;
use crate::cli::{Globals, PublishArgs, SubscribeArgs};
use crate::client::{Client, Event, segment};
use crate::error::{CliError, Code};
use crate::output::{self, Format, millis, printable};

/// Most bytes taken from standard input: beyond the largest message that can be configured.
pub(super) const STDIN_BYTES_MAX: u64 = 16 << 20;

pub(super) fn publish(globals: &Globals, args: &PublishArgs) -> Result<(), CliError> {
    let path = path(&args.channel, "messages")?;
    let client = Client::new(globals)?;
    let payload = if args.data == "-" { read_stdin()?.into() } else { Payload::from(args.data.as_str()) };
    let value: Value = client.post(&path, &PublishRequest { payload })?;
    let published: Published = typed(&value)?;
    output::record(globals.output, &value, || {
        vec![
            ("id", published.id.to_string()),
            ("seq", published.seq.to_string()),
            ("step", published.step.to_string()),
            ("recipients", published.recipients.to_string()),
        ]
    })?;
    if published.recipients > 0 {
        return Ok(());
    }
    let message = format!("published, but nobody got it: no connected peer subscribes to {:?}", args.channel);
    Err(CliError::new(Code::PartlyDone, message).hint(
        "run `omnimesh subscribe` on another node; `omnimesh peers` lists those connected; \
         a new subscription takes a moment to be known",
    ))
}

pub(super) fn subscribe(globals: &Globals, args: &SubscribeArgs) -> Result<(), CliError> {
    let path = path(&args.channel, "events")?;
    let mut stream = Client::new(globals)?.events(&path)?;
    output::tell(&format!("subscribed to {}", printable(&args.channel)));
    let mut received = 0;
    while args.count.is_none_or(|count| received < count) {
        let event = stream.next().map_err(|error| explain(error, globals.timeout, received, args.count))?;
        let Some(event) = event else {
            return Err(CliError::new(Code::Unreachable, "the node ended the subscription")
                .hint("it was stopped or restarted; subscribe again when it runs"));
        };
        if show(globals.output, &event)? {
            received += 1;
        }
    }
    Ok(())
}

/// Where a channel's messages go or come from. The node judges the name, but for an empty one, which would be
/// another path, and for what it would name as it stands in the path, and not as it was typed.
fn path(channel: &str, what: &str) -> Result<String, CliError> {
    if channel.is_empty() {
        return Err(CliError::new(Code::Usage, "the channel name is empty").hint("for example: news"));
    }
    if channel.contains(['/', '%', '+']) {
        Channel::new(channel).map_err(|error| {
            CliError::new(Code::Usage, error.to_string()).hint("for example `news` or `room-1.door`")
        })?;
    }
    Ok(format!("/api/v1/channels/{}/{what}", segment(channel)))
}

/// Prints a message and returns true, or tells what else came.
fn show(format: Format, event: &Event) -> Result<bool, CliError> {
    let parse_error = |error| {
        CliError::new(Code::Failed, format!("the node sent an event that is not understood: {error}"))
    };
    match event.name.as_str() {
        "message" if format.is_json() => {
            let message: Value = serde_json::from_str(&event.data).map_err(parse_error)?;
            output::line(&message)?;
            Ok(true)
        }
        "message" => {
            let message: Message = serde_json::from_str(&event.data).map_err(parse_error)?;
            output::text(&line_of(&message))?;
            Ok(true)
        }
        "lagged" => {
            let lagged: Lagged = serde_json::from_str(&event.data).map_err(parse_error)?;
            output::tell(&format!(
                "warning: {} messages were lost: they came faster than they were read",
                lagged.lost
            ));
            Ok(false)
        }
        _ => Ok(false),
    }
}

fn line_of(message: &Message) -> String {
    let data = match message.payload.as_text() {
        Some(text) => printable(text),
        None => format!("({} bytes, not text)", message.payload.as_bytes().len()),
    };
    let latency = millis(message.latency_ms);
    format!("{}  seq {}  step {}  {latency}  {data}", message.author, message.seq, message.step)
}

fn explain(error: CliError, timeout: Option<Duration>, received: u64, count: Option<u64>) -> CliError {
    let (Code::Timeout, Some(timeout)) = (error.code, timeout) else { return error };
    let of = count.map_or_else(String::new, |count| format!(" of {count}"));
    CliError::new(Code::Timeout, format!("received {received}{of} messages in {} s", timeout.as_secs_f64()))
        .hint("give it longer with --timeout SECONDS, or none to wait for ever")
}

pub(super) fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut data = Vec::new();
    io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut data)
        .map_err(|error| CliError::new(Code::Failed, format!("cannot read standard input: {error}")))?;
    if data.len() as u64 > STDIN_BYTES_MAX {
        return Err(CliError::new(
            Code::Refused,
            format!(
                "standard input has more than {STDIN_BYTES_MAX} bytes, which no mesh takes as one message"
            ),
        )
        .hint("send it in parts: a node's limit is gossip.message_bytes_max, by default 65536"));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use omnimesh_protocol::{MessageId, NodeId, Seq, Step};

    #[test]
    fn a_message_is_one_safe_line() {
        let mut message = Message {
            id: MessageId::of(b"x"),
            channel: "news".to_owned(),
            author: NodeId::from_bytes([7; 32]),
            seq: Seq(3),
            step: Step(9),
            payload: "a\n\x1b[2Jb".into(),
            latency_ms: Some(1.26),
            from: None,
        };
        assert!(line_of(&message).ends_with("  seq 3  step 9  1.3 ms  a\\n\\u{1b}[2Jb"));
        message.payload = vec![0xff, 0xfe].into();
        assert!(line_of(&message).ends_with("(2 bytes, not text)"));
    }
}
