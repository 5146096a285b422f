//! `replay.json`

use omnimesh_protocol::replay::{Config, ReplayWindows};
use omnimesh_protocol::{NodeId, Seq, Step};
use serde::{Deserialize, Serialize};

use crate::{Num, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    window: Num,
    authors_max: usize,
    floor: Option<Num>,
    messages: Vec<Message>,
    /// The floor after the last message.
    floor_after: Option<Num>,
}

#[derive(Serialize, Deserialize)]
struct Message {
    author: u8,
    seq: Num,
    count: Num,
    step: Num,
    stale_before: Num,
    result: String,
}

/// Author, first number, how many, step, first step that is not stale.
type Row = (u8, u64, u64, u64, u64);

fn play(case: &mut Case) {
    let config = Config { window: case.window.0, authors_max: case.authors_max.try_into().unwrap() };
    let mut windows = ReplayWindows::new(&config, case.floor.map(|floor| Step(floor.0)));
    for message in &mut case.messages {
        let author = NodeId::from_bytes([message.author; 32]);
        let [seq, count, step, stale_before] =
            [message.seq, message.count, message.step, message.stale_before].map(|n| n.0);
        let result = windows.commit(&author, Seq(seq), count, Step(step), Step(stale_before));
        message.result = result.err().map_or("accepted", |reason| reason.code()).to_owned();
    }
    case.floor_after = windows.floor().map(|floor| Num(floor.0));
}

fn case(name: &str, window: u64, authors_max: usize, floor: Option<u64>, rows: &[(Row, &str)]) -> Case {
    let message = |(author, seq, count, step, stale_before): Row| Message {
        author,
        seq: Num(seq),
        count: Num(count),
        step: Num(step),
        stale_before: Num(stale_before),
        result: String::new(),
    };
    let mut case = Case {
        name: name.to_owned(),
        window: Num(window),
        authors_max,
        floor: floor.map(Num),
        messages: rows.iter().map(|(row, _)| message(*row)).collect(),
        floor_after: None,
    };
    play(&mut case);
    for (message, (row, expected)) in case.messages.iter().zip(rows) {
        assert_eq!(message.result, *expected, "{name}: {row:?}");
    }
    case
}

fn cases() -> Vec<Case> {
    const OK: &str = "accepted";
    const OLD: &str = "replay";
    const UNSURE: &str = "not_provably_new";
    vec![
        case(
            "each number once, in any order",
            64,
            8,
            None,
            &[
                ((1, 5, 1, 10, 2), OK),
                ((1, 5, 1, 10, 2), OLD),
                ((1, 3, 1, 10, 2), OK),
                ((1, 9, 1, 11, 3), OK),
                ((1, 4, 1, 10, 2), OK),
                ((1, 3, 1, 11, 3), OLD),
                ((2, 5, 1, 10, 2), OK),
            ],
        ),
        case(
            "the window ends 64 below its top",
            64,
            8,
            None,
            &[
                ((1, 100, 1, 10, 2), OK),
                ((1, 36, 1, 10, 2), OLD),
                ((1, 37, 1, 10, 2), OK),
                ((1, 37, 1, 10, 2), OLD),
                ((1, 101, 1, 10, 2), OK),
                ((1, 37, 1, 10, 2), OLD),
            ],
        ),
        case(
            "a window of 65 is one of 128",
            65,
            8,
            None,
            &[((1, 200, 1, 10, 2), OK), ((1, 73, 1, 10, 2), OK), ((1, 72, 1, 10, 2), OLD)],
        ),
        case(
            "a bundle is new as a whole or not at all",
            64,
            8,
            None,
            &[
                ((1, 10, 5, 10, 2), OK),
                ((1, 14, 3, 10, 2), OLD),
                ((1, 6, 5, 10, 2), OLD),
                ((1, 6, 4, 10, 2), OK),
                ((1, 15, 200, 10, 2), OK),
                ((1, 214, 1, 10, 2), OLD),
                ((1, 151, 1, 10, 2), OLD),
                ((1, 215, 1, 10, 2), OK),
            ],
        ),
        case(
            "a leap leaves no marks behind",
            64,
            8,
            None,
            &[
                ((1, 1, 64, 10, 2), OK),
                ((1, 128, 1, 10, 2), OK),
                ((1, 127, 1, 10, 2), OK),
                ((1, 65, 1, 10, 2), OK),
                ((1, 64, 1, 10, 2), OLD),
                ((1, 18_446_744_073_709_551_614, 1, 10, 2), OK),
                ((1, 18_446_744_073_709_551_613, 1, 10, 2), OK),
                ((1, 18_446_744_073_709_551_551, 1, 10, 2), OK),
                ((1, 18_446_744_073_709_551_550, 1, 10, 2), OLD),
            ],
        ),
        case(
            "at or below the floor nothing is provably new",
            64,
            8,
            Some(100),
            &[
                ((1, 1, 1, 100, 93), UNSURE),
                ((1, 1, 1, 101, 93), OK),
                ((1, 2, 1, 100, 93), UNSURE),
                ((1, 2, 1, 102, 94), OK),
            ],
        ),
        case(
            "a floor of zero covers step 0",
            64,
            8,
            Some(0),
            &[((1, 1, 1, 0, 0), UNSURE), ((1, 1, 1, 1, 0), OK)],
        ),
        case(
            "who is forgotten while stale costs nothing",
            64,
            2,
            None,
            &[
                ((1, 1, 1, 10, 2), OK),
                ((2, 1, 1, 20, 12), OK),
                ((3, 1, 1, 20, 12), OK),
                ((4, 1, 1, 30, 22), OK),
                ((1, 1, 1, 30, 22), OK),
            ],
        ),
        case(
            "who is forgotten too early raises the floor",
            64,
            2,
            None,
            &[
                ((1, 1, 1, 10, 2), OK),
                ((2, 1, 1, 12, 4), OK),
                ((1, 2, 1, 11, 3), OK),
                ((3, 1, 1, 13, 5), OK),
                ((2, 1, 1, 12, 5), UNSURE),
                ((4, 1, 1, 12, 5), UNSURE),
                ((1, 3, 1, 10, 5), OK),
                ((2, 2, 1, 13, 5), OK),
                ((2, 3, 1, 12, 5), UNSURE),
            ],
        ),
    ]
}

#[test]
fn replay_windows() {
    let description = "Sequences of messages that passed every other gate, and what the replay windows say of each. \
                       `author` stands for any author, `count` is the number of payloads, `stale_before` the first \
                       step that is not stale when the message is accepted; `floor` is the floor at the start.";
    for mut case in settle("replay.json", description, cases()) {
        let expected: Vec<_> = case.messages.iter().map(|message| message.result.clone()).collect();
        let floor_after = case.floor_after;
        play(&mut case);
        assert!(case.messages.iter().map(|message| &message.result).eq(&expected), "{}", case.name);
        assert_eq!(case.floor_after, floor_after, "{}", case.name);
    }
}
