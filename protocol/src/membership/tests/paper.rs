//! What the paper says, measured: Das, Gupta and Motivala (2002), "SWIM".

use super::*;

const PERIOD: Duration = SECOND;

/// Detection is a matter of pings: the first one that is sent to a member that has failed, and is not answered,
/// makes it suspect to him who sent it, at the end of his period.
#[test]
fn the_first_ping_to_a_failed_member_detects_it() {
    let size = 20;
    let mut net = Net::settled(size, 80);
    for trial in 0..100 {
        let victim = trial % size;
        // No phase of a period is preferred, and all rumours of the last failure are over.
        let pause = net.rng.random_range(4_000..5_000);
        net.run(Duration::from_millis(pause));
        net.clear_logs();
        net.muted = Some(victim);
        let failed = net.now;
        let suspected = |net: &Net| {
            let others =
                net.hosts.iter().enumerate().filter(|(n, _)| *n != victim).map(|(_, host)| &host.log);
            let suspicions =
                others.flatten().filter(|(_, o)| *o == Output::MemberSuspect { peer: node(victim) });
            suspicions.map(|(at, _)| *at).min()
        };
        let first = loop {
            net.run(Duration::from_millis(20));
            assert!(net.now.since(failed) < 20 * PERIOD, "trial {trial}: nobody suspects {victim}");
            if let Some(first) = suspected(&net) {
                break first;
            }
        };
        net.muted = None;
        let pings = || net.pings.iter().filter(|(_, to)| *to == victim).map(|(at, _)| *at);
        assert!(
            pings().any(|at| at + PERIOD == first),
            "trial {trial}: {first} is not a period after a ping"
        );
        // A ping that was on its way, or whose answer was, may be earlier.
        let next = pings().find(|at| *at >= failed);
        assert!(
            next.is_none_or(|next| first <= next + PERIOD),
            "trial {trial}: {next:?}, suspected at {first}"
        );
        net.pings.clear();
    }
}

/// Section 3.1: in each period every one of n - 1 others pings one of n - 1 at random, so that the first period in
/// which a failed member is pinged is number e/(e-1) = 1.582 in the mean.
///
/// Targets here come in shuffled rounds (section 4.3). In any one period each still pings the failed one with
/// probability 1/m, m = n - 1, independently of the others, but who did not do so yet becomes likelier to: nobody
/// does in k periods with probability (1 - k/m)^m instead of e^-k, and the sum over k is less by 1/m about.
///
/// Who pings whom does not depend on whether the target is alive, so each moment is as good as any for each member
/// to fail: the mean is that over all members and many moments.
#[test]
fn the_first_detection_takes_e_by_e_less_one_periods() {
    let size = 128;
    let mut net = Net::settled(size, 81);
    net.pings.clear();
    let (start, seconds) = (net.now, 120);
    net.run(seconds * SECOND);
    let mut pinged = vec![Vec::new(); size];
    for (at, to) in &net.pings {
        pinged[*to].push(at.since(start).as_secs_f64() / PERIOD.as_secs_f64());
    }
    let (mut sum, mut count, mut worst) = (0.0, 0_u32, 0.0_f64);
    for times in &pinged {
        // The last ones may have no ping after them.
        for failed in (0..(seconds - 20) * 20).map(|at| f64::from(at) / 20.0) {
            let next = times[times.partition_point(|at| *at < failed)];
            let periods = (next - failed).ceil().max(1.0);
            sum += periods;
            worst = worst.max(periods);
            count += 1;
        }
    }
    let (mean, paper) = (sum / f64::from(count), std::f64::consts::E / (std::f64::consts::E - 1.0));
    println!("detected in period {mean:.3} in the mean, {worst} at worst; the paper says {paper:.3}");
    assert!((mean - paper).abs() <= 0.05, "{mean:.3} periods, {paper:.3} in the paper");
}
