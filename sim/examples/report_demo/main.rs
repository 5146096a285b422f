//! Judges a made-up outcome and writes its run folder: `cargo run -p omnimesh-sim --example report_demo -- DIR`.

mod synthetic;

fn main() {
    let scenario = synthetic::scenario(200);
    let outcome = synthetic::outcome(&scenario);
    for checked in omnimesh_sim::checkers::check(&scenario, &outcome) {
        println!("{checked:?}");
    }
}
