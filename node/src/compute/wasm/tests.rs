//! What programs can do, and what they cannot.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use omnimesh_protocol::compute::job::{Limits, Params};
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::registry::Value;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::compute::{Cancel, Input, OpError, Task};

struct Bench {
    sandbox: Sandbox,
    programs: Programs,
}

impl Bench {
    fn new() -> Self {
        let config = SandboxConfig { instances: 4, memory_bytes_max: 64 << 20, ..SandboxConfig::default() };
        Bench {
            sandbox: Sandbox::new(config).unwrap(),
            programs: Programs::new(NonZeroUsize::new(8).unwrap()),
        }
    }

    fn run_bytes(&self, program: &[u8], input: &[u8], limits: Limits) -> Result<Vec<u8>, OpError> {
        self.timed(program, input, limits).map(|(output, _)| output)
    }

    fn timed(&self, program: &[u8], input: &[u8], limits: Limits) -> Result<(Vec<u8>, Duration), OpError> {
        let task = Task {
            operation: "wasm".to_owned(),
            params: Params::from([("n".to_owned(), Value::Integer(3).encode().unwrap())]),
            program: Some(Bytes::copy_from_slice(program)),
            inputs: vec![Input::whole(input.to_vec()), Input::missing()],
            limits,
        };
        let cancel = Cancel::after(Duration::from_millis(limits.wall_ms));
        self.programs.run(&self.sandbox, &task, &cancel)
    }

    fn run(&self, body: &str, limits: Limits) -> Result<Vec<u8>, OpError> {
        self.run_bytes(&module(body), b"hello", limits)
    }

    fn reason(&self, body: &str) -> FailReason {
        self.run(body, small()).unwrap_err().reason
    }
}

fn small() -> Limits {
    // Wall time is of other processes as well: what tests it has its own limit.
    Limits { cpu_ms: 200, memory_bytes: 1 << 20, output_bytes: 100_000, wall_ms: 600_000 }
}

/// A module whose `omnimesh_run` has this body; rooms for parameters and input are at 1,024 and 4,096.
fn module(body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 1024))
            (table 4 funcref)
            (type $none (func))
            (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
            (func (export "omnimesh_alloc") (param i32) (result i32)
                (global.get $next) (global.set $next (i32.const 4096)))
            (func (export "omnimesh_run") (param $params i32) (param $params_len i32)
                (param $input i32) (param $input_len i32) (result i64)
                (local $f f64)
                {body}))"#
    ))
    .unwrap()
}

/// Answers so many bytes from an address.
fn answer(at: &str, length: &str) -> String {
    format!("(i64.or (i64.shl (i64.extend_i32_u {at}) (i64.const 32)) (i64.extend_i32_u {length}))")
}

#[test]
fn bytes_in_bytes_out() {
    let bench = Bench::new();
    let output = bench.run(&answer("(local.get $input)", "(local.get $input_len)"), small()).unwrap();
    let mut expected = 2_u32.to_le_bytes().to_vec();
    expected.extend_from_slice(&5_u64.to_le_bytes());
    expected.extend_from_slice(b"hello");
    expected.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(output, expected);
    let output = bench.run(&answer("(local.get $params)", "(local.get $params_len)"), small()).unwrap();
    assert_eq!(output, b"{\"n\":3}");
    assert_eq!(bench.run("(i64.const 0)", small()).unwrap(), b"");
}

#[test]
fn a_program_says_why_it_failed() {
    let bench = Bench::new();
    let body = format!(
        "(i32.store (i32.const 100) (i32.const 0x6f70)) (i64.or (i64.const 0x8000000000000000) {})",
        answer("(i32.const 100)", "(i32.const 2)")
    );
    assert_eq!(bench.run(&body, small()).unwrap_err(), OpError::new(FailReason::Program, "po"));
}

#[test]
fn each_hostile_program_has_its_own_failure() {
    let bench = Bench::new();
    let grow = "(loop $l (drop (memory.grow (i32.const 16))) (br_if $l (i32.lt_u (memory.size) (i32.const 1000)))) (i64.const 0)";
    let cases = [
        ("(loop $l (br $l)) (i64.const 0)", FailReason::CpuLimit),
        ("(drop (call $deep (i32.const 1))) (i64.const 0)", FailReason::Program),
        ("(unreachable)", FailReason::Program),
        ("(i64.extend_i32_u (i32.div_u (i32.const 1) (i32.const 0)))", FailReason::Program),
        ("(i64.load (i32.const 0x7fffffff))", FailReason::Program),
        ("(call_indirect (type $none) (i32.const 2)) (i64.const 0)", FailReason::Program),
        // A program that does not look at what memory.grow says, and goes on for ever, runs out of fuel.
        (grow, FailReason::CpuLimit),
        (
            "(if (i32.eq (memory.grow (i32.const 900)) (i32.const -1)) (then (unreachable))) (i64.const 0)",
            FailReason::MemoryLimit,
        ),
        (&answer("(i32.const 0)", "(i32.const 100001)"), FailReason::OutputLimit),
        (&answer("(i32.const 0)", "(i32.const -1)"), FailReason::OutputLimit),
        (&answer("(i32.const 0x7ffffff0)", "(i32.const 100)"), FailReason::Program),
    ];
    for (body, reason) in cases {
        assert_eq!(bench.reason(body), reason, "{body}");
    }
    let stack = bench.run("(drop (call $deep (i32.const 1))) (i64.const 0)", small()).unwrap_err();
    assert!(stack.detail.contains("stack"), "{stack}");
    // The sandbox is as good as before.
    bytes_in_bytes_out();
}

#[test]
fn processor_time_is_what_the_system_measured() {
    let bench = Bench::new();
    let body = "(loop $l (local.set $f (f64.add (local.get $f) (f64.const 1)))
                (br_if $l (f64.lt (local.get $f) (f64.const 1e7)))) (i64.const 0)";
    let begin = std::time::Instant::now();
    let (_, cpu) = bench.timed(&module(body), b"", small()).unwrap();
    let wall = begin.elapsed();
    assert!(!cpu.is_zero() && cpu <= wall, "{cpu:?} of {wall:?}");
}

#[test]
fn a_program_that_takes_too_long_is_interrupted() {
    let bench = Bench::new();
    let limits = Limits { cpu_ms: 1 << 40, wall_ms: 50, ..small() };
    let error = bench.run("(loop $l (br $l)) (i64.const 0)", limits).unwrap_err();
    assert_eq!(error.reason, FailReason::WallLimit);
}

#[test]
fn a_program_that_is_not_wanted_any_more_is_interrupted() {
    let bench = Bench::new();
    let limits = Limits { cpu_ms: 1 << 40, ..small() };
    let cancel = Cancel::after(Duration::from_secs(3600));
    let task = Task {
        operation: "wasm".to_owned(),
        params: Params::new(),
        program: Some(module("(loop $l (br $l)) (i64.const 0)").into()),
        inputs: Vec::new(),
        limits,
    };
    cancel.cancel();
    let error = bench.programs.run(&bench.sandbox, &task, &cancel).unwrap_err();
    assert_eq!(error.reason, FailReason::Unavailable);
}

#[test]
fn nothing_can_be_imported_and_nothing_else_is_a_program() {
    let bench = Bench::new();
    let reason = |text: &str| bench.run_bytes(&wat::parse_str(text).unwrap(), b"", small()).unwrap_err();
    let import = reason(r#"(module (import "env" "time" (func)))"#);
    assert_eq!(import.reason, FailReason::BadProgram);
    assert!(import.detail.contains("env.time"), "{import}");
    for text in [
        "(module)",
        r#"(module (memory (export "memory") 1))"#,
        r#"(module (memory (export "memory") 1) (func (export "omnimesh_alloc") (result i32) (i32.const 0)))"#,
    ] {
        assert_eq!(reason(text).reason, FailReason::BadProgram, "{text}");
    }
    // What is off.
    for text in [
        "(module (memory i64 1))",
        "(module (memory 1) (memory 1))",
        "(module (memory 1 2 shared))",
        r#"(module (memory (export "memory") 65536))"#,
    ] {
        let error = wat::parse_str(text).map(|bytes| bench.run_bytes(&bytes, b"", small()).unwrap_err());
        let reason = error.unwrap().reason;
        assert!(
            matches!(reason, FailReason::BadProgram | FailReason::MemoryLimit),
            "{text}: {}",
            reason.code()
        );
    }
    // A start function is limited like the rest.
    let start = r#"(module (func $f (loop $l (br $l))) (start $f))"#;
    assert_eq!(reason(start).reason, FailReason::CpuLimit);
    let long = vec![0; (8 << 20) + 1];
    assert_eq!(bench.run_bytes(&long, b"", small()).unwrap_err().reason, FailReason::BadProgram);
}

#[test]
fn nans_are_canonical() {
    let bench = Bench::new();
    // Nought by nought, and a NaN with a payload plus one.
    for body in [
        "(local.set $f (f64.div (f64.const 0) (f64.const 0)))",
        "(local.set $f (f64.add (f64.const nan:0xfffff) (f64.const 1)))",
        "(local.set $f (f64.neg (f64.sqrt (f64.const -1)))) (local.set $f (f64.mul (local.get $f) (f64.const 1)))",
    ] {
        let body = format!(
            "{body} (f64.store (i32.const 0) (local.get $f)) {}",
            answer("(i32.const 0)", "(i32.const 8)")
        );
        let output = bench.run(&body, small()).unwrap();
        assert_eq!(output, 0x7ff8_0000_0000_0000_u64.to_le_bytes(), "{body}");
    }
}

/// However a good module is damaged: an output or an error, and never more memory than is allowed.
#[test]
fn damaged_modules_end() {
    let seed = std::env::var("OMNIMESH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let count = std::env::var("OMNIMESH_SCALE").map_or(1, |scale| scale.parse::<u64>().unwrap()) * 10_000;
    println!("seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-node damaged_modules_end");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let bench = Bench::new();
    let good = module(&answer("(local.get $input)", "(local.get $input_len)"));
    let limits = Limits { cpu_ms: 5, ..small() };
    let mut outcomes = std::collections::BTreeMap::new();
    for _ in 0..count {
        let mut bytes = good.clone();
        for _ in 0..1 + rng.next_u32() % 4 {
            let place = rng.next_u32() as usize % bytes.len();
            match rng.next_u32() % 3 {
                0 => bytes[place] = rng.next_u32().to_le_bytes()[0],
                1 => drop(bytes.remove(place)),
                _ => bytes.insert(place, rng.next_u32().to_le_bytes()[0]),
            }
        }
        let outcome = bench.run_bytes(&bytes, b"hello", limits);
        assert!(outcome.as_ref().is_ok_and(|output| output.len() <= 100_000) || outcome.is_err());
        *outcomes.entry(outcome.map_or_else(|error| error.reason.code(), |_| "output")).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    assert!(outcomes["bad_program"] > 0);
    assert!(
        bench.run(&answer("(i32.const 0)", "(i32.const 1)"), small()).is_ok(),
        "the sandbox is as good as before"
    );
}

#[test]
fn instances_are_bounded_and_come_back() {
    let bench = Bench::new();
    for _ in 0..100 {
        bench.run("(i64.const 0)", small()).unwrap();
    }
    let metrics = bench.sandbox.engine.pooling_allocator_metrics().unwrap();
    assert_eq!(metrics.core_instances(), 0);
}
