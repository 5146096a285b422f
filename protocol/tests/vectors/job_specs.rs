//! The specs in `job_operations.json`: good ones, and what can be wrong in one.

use crate::specs::{
    SKIP, Source, Spec, Task, action, blob, chunks, constraints, fallback, groups, input, labels, numbers,
    sources, spec, submit, task,
};
use crate::{GOOD, Listed, cbor};

/// All of them, by themselves.
pub(crate) fn all() -> Vec<Listed> {
    [bad_forms(), bad_tasks(), bad_names(), bad_sense(), graphs()].concat()
}

/// About the least that there is.
pub(crate) fn least() -> Spec {
    spec(&[], &[task("a", "hash", |_| {})])
}

/// One of everything.
pub(crate) fn most() -> Spec {
    let values = [
        ("Z", cbor::NULL.to_vec()),
        ("a", cbor::FALSE.to_vec()),
        ("b", cbor::TRUE.to_vec()),
        ("c", cbor::head(1, (1 << 63) - 1)),
        ("d", cbor::uint((1 << 63) - 1)),
        ("e", float(0.5)),
        ("f", cbor::text("ü")),
        ("g", cbor::bytes([0, 255])),
        ("h", cbor::array(&[cbor::uint(24), cbor::array(&[])])),
        ("i", cbor::map(&[(cbor::text(""), cbor::NULL.to_vec())])),
        ("A.", [vec![0x81; 8], cbor::NULL.to_vec()].concat()),
    ];
    let program = blob(2, 18_231);
    let tasks = [
        task("count", "wasm", |task| {
            task.action = action("wasm", Some(program), &values);
            task.each = chunks(0, 10, 1);
            task.limits = numbers(&[1, u64::MAX, 1, u64::MAX]);
            task.retry = numbers(&[20, 86_400_000, 86_400_000, 1000]);
            task.redundancy = cbor::uint(7);
            task.constraints = constraints(&[("disk", "ssd"), ("arch-2", "x86_64")], u64::MAX, Some("eu"));
            task.on_failure = SKIP.to_vec();
        }),
        task("merge", "concat", |task| {
            task.each = groups(0, 2);
            task.when_missing = cbor::uint(1);
            task.retry = numbers(&[0, 0, 0, 0]);
        }),
        task("rows", "analyze", |task| {
            task.each = chunks(2, 1 << 26, 2);
            task.on_failure = fallback(action("analyze", None, &[("header", cbor::TRUE.to_vec())]));
        }),
        task("total", "hash", |task| {
            task.sources = sources(&[Source::Input(0), Source::Task(1), Source::Input(3)]);
            task.after = numbers(&[2]);
            task.on_failure = fallback(action("wasm", Some(program), &[]));
        }),
        task("report", "analyze_merge", |task| task.sources = sources(&[Source::Task(2)])),
    ];
    let inputs = [
        input("text", blob(1, 25)),
        input("program", program),
        input("table", blob(3, 1 << 32)),
        input("empty", blob(4, 0)),
    ];
    spec(&inputs, &tasks).with(|spec| {
        spec.name = cbor::text("Everything_2.0-x");
        spec.nonce = cbor::uint(u64::MAX);
        spec.deadline_s = cbor::uint(2_592_000);
        spec.spot_check = cbor::uint(1000);
        let output = |name, place| cbor::array(&[cbor::text(name), cbor::uint(place)]);
        // An output may be called as a task is.
        spec.outputs = cbor::array(&[output("words", 3), output("report", 4), output("too", 4)]);
    })
}

fn float(value: f64) -> Vec<u8> {
    [&[0xfb][..], &value.to_be_bytes()].concat()
}

fn spec_of(change: impl FnOnce(&mut Spec)) -> Vec<u8> {
    submit(&least().with(change).bytes())
}

/// A job of one task, and an input of 25 bytes for it.
fn of_task(change: impl FnOnce(&mut Task)) -> Vec<u8> {
    submit(&spec(&[input("text", blob(1, 25))], &[task("a", "hash", change)]).bytes())
}

fn of_action(action: Vec<u8>) -> Vec<u8> {
    of_task(|task| task.action = action)
}

fn of_value(value: Vec<u8>) -> Vec<u8> {
    of_action(action("wasm", Some(blob(2, 1)), &[("x", value)]))
}

/// A submission of which the spec has so many bytes.
fn of_length(length: usize) -> Vec<u8> {
    let with = |rest: usize| {
        let params = [("a", cbor::bytes(vec![7; 16_381])), ("b", cbor::bytes(vec![8; rest]))];
        spec(&[], &[task("a", "wasm", |task| task.action = action("wasm", Some(blob(2, 1)), &params))])
            .bytes()
    };
    let spec = with(length + 1000 - with(1000).len());
    assert_eq!(spec.len(), length);
    submit(&spec)
}

/// Specs that cannot be read.
fn bad_forms() -> Vec<Listed> {
    let (malformed, bad_number) = ("malformed", "bad_number");
    let items = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut items = least().items();
        change(&mut items);
        submit(&cbor::array(&items))
    };
    let input_of = |items: &[Vec<u8>]| spec_of(|spec| spec.inputs = cbor::array(&[cbor::array(items)]));
    let hash = || cbor::bytes([1; 32]);
    let text = |text: &str| cbor::text(text);
    vec![
        ("a spec without bytes", submit(b""), "truncated"),
        ("a number for a spec", submit(&[1]), malformed),
        ("a spec of version 2", spec_of(|spec| spec.version = vec![2]), "unknown_version"),
        ("a spec of seven items", items(&|items| drop(items.pop())), malformed),
        ("a spec of nine items", items(&|items| items.push(vec![0x80])), malformed),
        ("a spec that is cut", submit(&least().bytes()[..20]), "truncated"),
        ("a byte more in the spec", submit(&[least().bytes(), vec![0]].concat()), "trailing_bytes"),
        ("a spec with a nonce in two bytes", spec_of(|spec| spec.nonce = vec![0x18, 7]), "not_canonical"),
        ("a spec with a negative nonce", spec_of(|spec| spec.nonce = vec![0x20]), malformed),
        ("bytes for the name of a job", spec_of(|spec| spec.name = cbor::bytes("job")), malformed),
        ("a spot check of 65,536", spec_of(|spec| spec.spot_check = cbor::uint(65_536)), bad_number),
        ("an input without a size", input_of(&[text("x"), hash()]), malformed),
        (
            "an input with a hash of 31 bytes",
            input_of(&[text("x"), cbor::bytes([1; 31]), vec![0]]),
            malformed,
        ),
        (
            "an output that is task 65,536",
            spec_of(|spec| spec.outputs = cbor::array(&[cbor::array(&[text("x"), cbor::uint(65_536)])])),
            bad_number,
        ),
    ]
}

/// Tasks that cannot be read.
fn bad_tasks() -> Vec<Listed> {
    let (malformed, bad_number) = ("malformed", "bad_number");
    let task_of = |count: usize| {
        let mut items: Vec<Vec<u8>> =
            cbor::items(&task("a", "hash", |_| {}).item()).into_iter().map(<[u8]>::to_vec).collect();
        items.resize(count, vec![0]);
        spec_of(|spec| spec.tasks = cbor::array(&[cbor::array(&items)]))
    };
    let source = |item: Vec<u8>| of_task(|task| task.sources = cbor::array(&[item]));
    let each = |item: Vec<u8>| of_task(|task| task.each = item);
    let hash = || cbor::bytes([1; 32]);
    let text = |text: &str| cbor::text(text);
    vec![
        ("a task of ten items", task_of(10), malformed),
        ("a task of twelve items", task_of(12), malformed),
        ("a source that is neither input nor task", source(numbers(&[2, 0])), malformed),
        ("a source of one item", source(numbers(&[0])), malformed),
        ("a source that is input 65,536", source(numbers(&[0, 65_536])), bad_number),
        ("a source that is task 65,536", source(numbers(&[1, 65_536])), bad_number),
        ("waits for task 65,536", of_task(|task| task.after = numbers(&[65_536])), bad_number),
        ("chunks without an align", each(numbers(&[0, 0, 10])), malformed),
        ("chunks with align 3", each(chunks(0, 10, 3)), malformed),
        ("chunks of input 65,536", each(chunks(65_536, 10, 0)), bad_number),
        ("groups without a length", each(numbers(&[1, 0])), malformed),
        ("groups of 2^32", each(groups(0, 1 << 32)), bad_number),
        ("neither chunks nor groups", each(numbers(&[2, 0, 1])), malformed),
        ("an empty array for what it is fanned out over", each(numbers(&[])), malformed),
        ("three limits", of_task(|task| task.limits = numbers(&[1, 1, 1])), malformed),
        ("256 retries", of_task(|task| task.retry = numbers(&[256, 0, 0, 0])), bad_number),
        ("a jitter of 65,536", of_task(|task| task.retry = numbers(&[0, 0, 0, 65_536])), bad_number),
        ("a redundancy of 256", of_task(|task| task.redundancy = cbor::uint(256)), bad_number),
        (
            "constraints of two items",
            of_task(|task| task.constraints = cbor::array(&[labels(&[]), vec![0]])),
            malformed,
        ),
        (
            "a number for a region",
            of_task(|task| task.constraints = cbor::array(&[labels(&[]), vec![0], vec![0]])),
            malformed,
        ),
        (
            "labels out of order",
            of_task(|task| task.constraints = constraints(&[("aa", "x"), ("b", "x")], 0, None)),
            "not_canonical",
        ),
        (
            "a label twice",
            of_task(|task| task.constraints = constraints(&[("a", "x"), ("a", "y")], 0, None)),
            "not_canonical",
        ),
        (
            "a number for the value of a label",
            of_task(|task| {
                let labels = cbor::map(&[(text("a"), vec![1])]);
                task.constraints = cbor::array(&[labels, vec![0], cbor::NULL.to_vec()]);
            }),
            malformed,
        ),
        ("on failure 3", of_task(|task| task.on_failure = numbers(&[3])), malformed),
        ("on failure 0 with an action", of_task(|task| task.on_failure = numbers(&[0, 0])), malformed),
        ("a fallback without an action", of_task(|task| task.on_failure = numbers(&[2])), malformed),
        ("when missing 2", of_task(|task| task.when_missing = cbor::uint(2)), malformed),
        ("an action of two items", of_action(cbor::array(&[text("hash"), cbor::NULL.to_vec()])), malformed),
        (
            "a program without a size",
            of_action(cbor::array(&[text("wasm"), cbor::array(&[hash()]), cbor::map(&[])])),
            malformed,
        ),
        (
            "parameters out of order",
            of_action(action("hash", None, &[("hex", vec![0]), ("a", vec![0])])),
            "not_canonical",
        ),
        ("a parameter of 2^63", of_value(cbor::uint(1 << 63)), bad_number),
        ("a parameter that is not a number", of_value(float(f64::NAN)), "not_canonical"),
        ("a parameter with a tag", of_value(vec![0xc1, 0]), malformed),
        ("a parameter of nine levels", of_value([vec![0x81; 9], vec![0]].concat()), "too_deep"),
        ("a parameter of 16,384 bytes", of_value(cbor::bytes(vec![7; 16_381])), GOOD),
        ("a parameter of 16,385 bytes", of_value(cbor::bytes(vec![7; 16_382])), "too_large"),
        ("a spec of 32,768 bytes", of_length(32_768), GOOD),
        ("a spec of 32,769 bytes", of_length(32_769), "too_large"),
    ]
}

fn bad_names() -> Vec<Listed> {
    let bad_name = "bad_name";
    let name = |name: &str| spec_of(|spec| spec.name = cbor::text(name));
    let inputs = |names: [&str; 2]| {
        submit(&spec(&names.map(|name| input(name, blob(1, 1))), &[task("a", "hash", |_| {})]).bytes())
    };
    let tasks = |names: [&str; 2]| submit(&spec(&[], &names.map(|name| task(name, "hash", |_| {}))).bytes());
    let outputs = |names: [&str; 2]| {
        let outputs = names.map(|name| cbor::array(&[cbor::text(name), vec![0]]));
        spec_of(|spec| spec.outputs = cbor::array(&outputs))
    };
    let constraints =
        |labels: &[(&str, &str)], region| of_task(|task| task.constraints = constraints(labels, 0, region));
    vec![
        ("a name of 64 bytes", name(&"n".repeat(64)), GOOD),
        ("a name of 65 bytes", name(&"n".repeat(65)), bad_name),
        ("an empty name", name(""), bad_name),
        ("a name with a space", name("a b"), bad_name),
        ("a name beyond ASCII", name("küche"), bad_name),
        ("an input without a name", inputs(["x", ""]), bad_name),
        ("two inputs of one name", inputs(["x", "x"]), bad_name),
        ("an input and a task of one name", inputs(["x", "a"]), bad_name),
        ("a task with a slash in its name", tasks(["x", "x/y"]), bad_name),
        ("two tasks of one name", tasks(["x", "x"]), bad_name),
        ("names that differ by a capital", tasks(["x", "X"]), GOOD),
        ("an output without a name", outputs(["x", ""]), bad_name),
        ("two outputs of one name", outputs(["x", "x"]), bad_name),
        ("a parameter without a name", of_action(action("hash", None, &[("", vec![0])])), bad_name),
        (
            "a parameter that the operation does not have",
            of_action(action("hash", None, &[("x", vec![0])])),
            GOOD,
        ),
        ("a label without a name", constraints(&[("", "x")], None), bad_name),
        ("a label with an empty value", constraints(&[("x", "")], None), bad_name),
        ("a region with a space", constraints(&[], Some("e u")), bad_name),
    ]
}

/// Numbers and names of things that are read well and make no sense.
fn bad_sense() -> Vec<Listed> {
    let (bad_value, missing) = ("bad_value", "missing");
    let (unknown_name, unknown_operation) = ("unknown_name", "unknown_operation");
    let deadline = |seconds| spec_of(|spec| spec.deadline_s = cbor::uint(seconds));
    let limits = |place: usize| {
        let mut limits = [1; 4];
        limits[place] = 0;
        of_task(|task| task.limits = numbers(&limits))
    };
    let retry = |retry: [u64; 4]| of_task(|task| task.retry = numbers(&retry));
    let program = || Some(blob(2, 1));
    let falls_back = |action| of_task(|task| task.on_failure = fallback(action));
    let rows = |operation: &str, then: &str| {
        let task = task("a", operation, |task| {
            task.each = chunks(0, 10, 2);
            task.on_failure = fallback(action(then, None, &[]));
        });
        submit(&spec(&[input("table", blob(1, 25))], &[task]).bytes())
    };
    let reads = |source| of_task(|task| task.sources = sources(&[source]));
    let output = |place| {
        let outputs = cbor::array(&[cbor::array(&[cbor::text("x"), cbor::uint(place)])]);
        spec_of(|spec| spec.outputs = outputs)
    };
    vec![
        ("a job without tasks", submit(&spec(&[], &[]).bytes()), missing),
        ("a deadline of 0", deadline(0), bad_value),
        ("a deadline of a second", deadline(1), GOOD),
        ("a deadline of 30 days and a second", deadline(2_592_001), bad_value),
        ("a spot check of 1,001", spec_of(|spec| spec.spot_check = cbor::uint(1001)), bad_value),
        ("chunks of no bytes", of_task(|task| task.each = chunks(0, 0, 0)), bad_value),
        ("a limit of 0 for CPU time", limits(0), bad_value),
        ("a limit of 0 for memory", limits(1), bad_value),
        ("a limit of 0 for the output", limits(2), bad_value),
        ("a limit of 0 for the duration", limits(3), bad_value),
        ("21 retries", retry([21, 0, 0, 0]), bad_value),
        ("a first wait of more than a day", retry([0, 86_400_001, 0, 0]), bad_value),
        ("a longest wait of more than a day", retry([0, 0, 86_400_001, 0]), bad_value),
        ("a longest wait below the first", retry([1, 2, 1, 0]), GOOD),
        ("a jitter of 1,001", retry([0, 0, 0, 1001]), bad_value),
        ("a redundancy of 0", of_task(|task| task.redundancy = cbor::uint(0)), bad_value),
        ("a redundancy of 8", of_task(|task| task.redundancy = cbor::uint(8)), bad_value),
        ("a program that nobody runs", of_action(action("hash", program(), &[])), bad_value),
        ("a program for a fallback that runs none", falls_back(action("hash", program(), &[])), bad_value),
        ("`wasm` without a program", of_action(action("wasm", None, &[])), missing),
        ("a fallback to `wasm` without a program", falls_back(action("wasm", None, &[])), missing),
        ("row groups for an operation that reads none", rows("hash", "analyze"), bad_value),
        ("row groups for a fallback that reads none", rows("analyze", "hash"), bad_value),
        ("an operation that there is not", of_action(action("analyse", None, &[])), unknown_operation),
        ("an operation with a capital", of_action(action("Hash", None, &[])), unknown_operation),
        ("a fallback that there is not", falls_back(action("", None, &[])), unknown_operation),
        ("`analyze_merge` of nothing", of_action(action("analyze_merge", None, &[])), missing),
        ("a fallback to `analyze_merge` of nothing", falls_back(action("analyze_merge", None, &[])), GOOD),
        ("reads an input that is not there", reads(Source::Input(1)), unknown_name),
        ("reads a task that is not there", reads(Source::Task(1)), unknown_name),
        ("waits for a task that is not there", of_task(|task| task.after = numbers(&[1])), unknown_name),
        ("chunks of an input that is not there", of_task(|task| task.each = chunks(1, 9, 0)), unknown_name),
        ("groups of a task that is not there", of_task(|task| task.each = groups(1, 9)), unknown_name),
        ("an output that is not there", output(1), unknown_name),
        ("waits for itself", of_task(|task| task.after = numbers(&[0])), "cycle"),
        ("reads itself", reads(Source::Task(0)), "cycle"),
        ("is fanned out over itself", of_task(|task| task.each = groups(0, 1)), "cycle"),
    ]
}

/// Graphs: circles, and too much of something.
fn graphs() -> Vec<Listed> {
    let quota = "quota";
    let circle = [
        task("a", "hash", |task| task.sources = sources(&[Source::Task(2)])),
        task("b", "hash", |task| task.each = groups(0, 1)),
        task("c", "hash", |task| task.after = numbers(&[1])),
    ];
    let names: Vec<String> = (0..257).map(|name| format!("{name:x}")).collect();
    let inputs = |count: usize| {
        let inputs: Vec<_> = names[..count].iter().map(|name| input(name, blob(1, 0))).collect();
        submit(&spec(&inputs, &[task("hash", "hash", |_| {})]).bytes())
    };
    // Of two digits each, so that they are in order.
    let pairs: Vec<String> = (10..75).map(|name| name.to_string()).collect();
    let params = |count: usize| {
        let params: Vec<_> = pairs[..count].iter().map(|name| (name.as_str(), vec![0])).collect();
        of_action(action("hash", None, &params))
    };
    let labelled = |count: usize| {
        let labels: Vec<_> = pairs[..count].iter().map(|name| (name.as_str(), "x")).collect();
        of_task(|task| task.constraints = constraints(&labels, 0, None))
    };
    let fanned = |sizes: &[u64]| {
        let inputs: Vec<_> =
            sizes.iter().zip(["x", "y"]).map(|(size, name)| input(name, blob(1, *size))).collect();
        let tasks: Vec<_> = (0..inputs.len() as u64)
            .zip(["a", "b"])
            .map(|(place, name)| task(name, "hash", |task| task.each = chunks(place, 1, 0)))
            .collect();
        submit(&spec(&inputs, &tasks).bytes())
    };
    let reads = |outputs: u64, change: &dyn Fn(&mut Task)| {
        let many = task("a", "hash", |task| task.each = chunks(0, 1, 0));
        submit(&spec(&[input("x", blob(1, outputs))], &[many, task("b", "hash", change)]).bytes())
    };
    let all = |task: &mut Task| task.sources = sources(&[Source::Task(0)]);
    let twice = |task: &mut Task| task.sources = sources(&[Source::Task(0), Source::Task(0)]);
    let of = |place| Source::Input(place);
    let both_ways = |task: &mut Task| {
        task.each = chunks(0, 10, 0);
        task.sources = sources(&[Source::Input(0)]);
    };
    let waits_too = |task: &mut Task| {
        task.sources = sources(&[Source::Task(0)]);
        task.after = numbers(&[0]);
    };
    // All inputs that there can be, and an output.
    let many_sources = |count: usize| {
        let inputs: Vec<_> = names[..256].iter().map(|name| input(name, blob(1, 0))).collect();
        let read: Vec<_> = (0..256).map(Source::Input).chain([Source::Task(0)]).take(count).collect();
        let tasks =
            [task("first", "hash", |_| {}), task("hash", "hash", |task| task.sources = sources(&read))];
        submit(&spec(&inputs, &tasks).bytes())
    };
    // So many read a chunk, so many others a chunk and all of those, and one so many inputs.
    let together = |outputs: u64, readers: u64, rest: u64| {
        let inputs = [input("x", blob(1, outputs)), input("y", blob(2, readers)), input("z", blob(3, 0))];
        let rest: Vec<_> = (0..rest).map(Source::Input).collect();
        let tasks = [
            task("a", "hash", |task| task.each = chunks(0, 1, 0)),
            task("b", "hash", |task| {
                task.each = chunks(1, 1, 0);
                task.sources = sources(&[Source::Task(0)]);
            }),
            task("c", "hash", |task| task.sources = sources(&rest)),
        ];
        submit(&spec(&inputs, &tasks).bytes())
    };
    let group = |task: &mut Task| task.each = groups(0, 16_384);
    let both = |task: &mut Task| {
        task.each = groups(0, 16_384);
        task.sources = sources(&[Source::Task(0)]);
    };
    vec![
        ("three tasks in a circle", submit(&spec(&[], &circle).bytes()), "cycle"),
        ("256 inputs", inputs(256), GOOD),
        ("257 inputs", inputs(257), quota),
        ("64 parameters", params(64), GOOD),
        ("65 parameters", params(65), quota),
        ("32 labels", labelled(32), GOOD),
        ("33 labels", labelled(33), quota),
        ("262,144 tasks", fanned(&[262_144]), GOOD),
        ("262,145 tasks", fanned(&[131_072, 131_073]), quota),
        ("2^64 - 1 tasks", fanned(&[u64::MAX]), quota),
        ("a task that reads 16,384 outputs", reads(16_384, &all), GOOD),
        ("a task that reads 16,385 outputs", reads(16_385, &all), quota),
        ("a task that reads the same outputs twice", reads(1, &twice), "bad_value"),
        (
            "a task that reads an input twice",
            of_task(|task| task.sources = sources(&[of(0), of(0)])),
            "bad_value",
        ),
        ("a task that waits for another twice", reads(1, &|task| task.after = numbers(&[0, 0])), "bad_value"),
        ("a task that reads a chunk, and all of that input", of_task(both_ways), GOOD),
        ("a task that reads outputs, and waits for them", reads(1, &waits_too), GOOD),
        ("256 sources", many_sources(256), GOOD),
        ("257 sources", many_sources(257), quota),
        // 16,382 + 1023 · (16,382 + 2) + 2
        ("16,777,216 things that are read by all tasks together", together(16_382, 1023, 2), GOOD),
        ("16,777,217 things that are read by all tasks together", together(16_382, 1023, 3), quota),
        ("1,000 outputs that are read by 1,000 tasks each", together(1000, 1000, 0), GOOD),
        ("a group of 16,384", reads(1, &group), GOOD),
        ("a group of 16,385", reads(1, &|task| task.each = groups(0, 16_385)), "bad_value"),
        ("a group of no outputs", reads(1, &|task| task.each = groups(0, 0)), "bad_value"),
        ("a group of 16,384, which counts whole, and one output more", reads(1, &both), quota),
    ]
}
