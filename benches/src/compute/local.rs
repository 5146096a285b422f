//! In this process: one task at a time.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use omnimesh_node::compute::{Cancel, Context, Input, Task, run};
use omnimesh_node::store::blob::BlobStore;
use omnimesh_protocol::compute::job::{Limits, Params};
use wasmtime::{Engine, Instance, Module, Store, TypedFunc};

use super::Row;
use crate::Outcome;
use crate::stats::quantile;

/// Tasks of a turn.
const TASKS: usize = 2000;

/// Sums the bytes of its input: what a task costs beyond that is the sandbox.
const SUM: &str = r#"(module
  (memory (export "memory") 2)
  (func (export "omnimesh_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "omnimesh_run") (param i32 i32 i32 i32) (result i64)
    (local $sum i32) (local $end i32)
    (local.set $end (i32.add (local.get 2) (local.get 3)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get 2) (local.get $end)))
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get 2))))
        (local.set 2 (i32.add (local.get 2) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 1024) (local.get $sum))
    (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const 4))))"#;

/// A WebAssembly task against calling its module, which stays as it is between calls; microseconds at p50.
pub(super) fn program(rounds: usize) -> Outcome<Row> {
    eprintln!("a WebAssembly task of 1 KiB");
    let module = wat::parse_str(SUM)?;
    let context = Context::new(1).map_err(|error| error.to_string())?;
    let task = Task {
        operation: "wasm".to_owned(),
        params: Params::new(),
        program: Some(module.clone().into()),
        inputs: vec![Input::whole(vec![7; 1024])],
        limits: Limits::default(),
    };
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &Module::from_binary(&engine, &module)?, &[])?;
    let called: TypedFunc<(u32, u32, u32, u32), u64> = instance.get_typed_func(&mut store, "omnimesh_run")?;
    let memory = instance.get_memory(&mut store, "memory").ok_or("no memory")?;
    memory.write(&mut store, 65536, &[7; 1024])?;
    let mut turns = Vec::new();
    for _ in 0..rounds {
        let ours = p50_us(|| {
            run(&task, &context, &Cancel::after(Duration::from_secs(10)))?;
            Ok(())
        })?;
        let bare = p50_us(|| {
            called.call(&mut store, (0, 0, 65536, 1024))?;
            Ok(())
        })?;
        turns.push((ours, bare));
    }
    Ok(Row::of("a WebAssembly task, µs at p50".to_owned(), "a call of its module", &turns))
}

fn p50_us(mut call: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::with_capacity(TASKS);
    for _ in 0..TASKS {
        let began = Instant::now();
        call()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(quantile(&times, 0.5).as_secs_f64() * 1e6)
}

/// Operation `hash` of a blob on disk against blake3 of the same file, mapped, on as many threads; MB/s.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(super) fn hash(bytes: u64, rounds: usize) -> Outcome<Row> {
    eprintln!("the hash of a blob of {} MiB", bytes >> 20);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("content");
    let mut file = File::create(&path)?;
    let piece: Vec<u8> =
        (0..1 << 20).map(|place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..bytes >> 20 {
        file.write_all(&piece)?;
    }
    drop(file);
    let store = Arc::new(BlobStore::open(dir.path(), bytes * 2)?);
    let blob = store.put(File::open(&path)?, false)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let context = Context::new(threads).map_err(|error| error.to_string())?;
    let mut turns = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        if !context.pool.install(|| store.check(&blob))? {
            return Err("the blob is gone".into());
        }
        let task = Task {
            operation: "hash".to_owned(),
            params: Params::new(),
            program: None,
            inputs: vec![Input::checked(blob.hash)],
            limits: Limits::default(),
        };
        let output = run(&task, &context, &Cancel::after(Duration::from_secs(600)))?;
        let ours = began.elapsed();
        let began = Instant::now();
        let mut hasher = blake3::Hasher::new();
        context.pool.install(|| hasher.update_mmap_rayon(&path).map(drop))?;
        let bare = hasher.finalize();
        let other = began.elapsed();
        if output.bytes != bare.as_bytes()[..] {
            return Err("another hash".into());
        }
        let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
        turns.push((rate(ours), rate(other)));
    }
    Ok(Row::of(format!("hash of {} MiB, MB/s", bytes >> 20), "blake3, mapped, on all threads", &turns))
}
