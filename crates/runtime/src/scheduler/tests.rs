use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;

fn counters(n: usize) -> Vec<AtomicUsize> {
    (0..n).map(|_| AtomicUsize::new(0)).collect()
}

fn values(counters: &[AtomicUsize]) -> Vec<usize> {
    counters.iter().map(|c| c.load(Ordering::Relaxed)).collect()
}

#[test]
fn every_thread_takes_part_in_every_region_once() {
    for threads in [1, 2, 3, 8] {
        let team = Team::new(threads);
        assert_eq!(team.threads(), threads);
        let counts = counters(threads);
        team.enter(|session| {
            assert_eq!(session.threads(), threads);
            for _ in 0..200 {
                session.run(&|worker, workers| {
                    assert_eq!(workers, threads);
                    counts[worker].fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(values(&counts), vec![200; threads]);
    }
}

#[test]
fn what_a_region_writes_is_seen_after_it() {
    let team = Team::new(2);
    let cells: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(0)).collect();
    team.enter(|session| {
        for round in 1..=20_000 {
            session.run(&|worker, _| cells[worker].store(round, Ordering::Relaxed));
            assert!(cells.iter().all(|c| c.load(Ordering::Relaxed) == round));
        }
    });
}

#[test]
fn more_threads_than_processors_only_take_turns() {
    let start = Instant::now();
    let team = Team::new(8);
    let count = AtomicUsize::new(0);
    team.enter(|session| {
        for _ in 0..500 {
            session.run(&|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(count.into_inner(), 4000);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn ranges_cover_all_items_once_and_do_not_depend_on_threads() {
    for threads in [1, 2, 5] {
        let team = Team::new(threads);
        for (items, grain) in [(0, 4), (1, 4), (100, 7), (64, 64), (65, 64), (3, 0)] {
            for balanced in [false, true] {
                let counts = counters(items);
                let note = |range: Range<usize>| {
                    assert_eq!(range.start % grain.max(1), 0);
                    assert!(range.end == items || range.len() == grain.max(1));
                    range.for_each(|i| _ = counts[i].fetch_add(1, Ordering::Relaxed));
                };
                team.enter(|session| {
                    if balanced { session.balance(items, grain, &note) } else { session.split(items, grain, &note) }
                });
                assert_eq!(values(&counts), vec![1; items], "{items} by {grain}");
            }
        }
    }
}

#[test]
fn a_panic_comes_out_at_the_caller_and_the_team_lives() {
    let team = Team::new(3);
    for culprit in 0..3 {
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.enter(|session| session.run(&|worker, _| assert!(worker != culprit, "worker {worker} fails")));
        }));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(message, format!("worker {culprit} fails"));
        let count = AtomicUsize::new(0);
        team.enter(|session| session.run(&|_, _| _ = count.fetch_add(1, Ordering::Relaxed)));
        assert_eq!(count.into_inner(), 3);
    }
}

#[test]
fn regions_and_sessions_inside_run_inline() {
    let team = Team::new(4);
    let (outer, inner) = (AtomicUsize::new(0), AtomicUsize::new(0));
    team.enter(|session| {
        session.run(&|_, _| {
            outer.fetch_add(1, Ordering::Relaxed);
            assert_eq!(session.threads(), 1);
            session.run(&|worker, workers| {
                assert_eq!((worker, workers), (0, 1));
                inner.fetch_add(1, Ordering::Relaxed);
            });
            team.enter(|nested| nested.run(&|_, workers| assert_eq!(workers, 1)));
        });
        team.enter(|nested| assert_eq!(nested.threads(), 1));
        assert_eq!(session.threads(), 4);
    });
    assert_eq!((outer.into_inner(), inner.into_inner()), (4, 4));
}

#[test]
fn callers_take_turns() {
    let team = Team::new(2);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    team.enter(|session| session.run(&|_, _| _ = count.fetch_add(1, Ordering::Relaxed)));
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 400);
}

#[test]
fn parked_workers_come_back() {
    let team = Team::new(2);
    let count = AtomicUsize::new(0);
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        team.enter(|session| session.run(&|_, _| _ = count.fetch_add(1, Ordering::Relaxed)));
    }
    assert_eq!(count.into_inner(), 10);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn denormals_are_zero_in_sessions_only() {
    let half = |x: f32| std::hint::black_box(std::hint::black_box(x) * 0.5);
    let team = Team::new(2);
    assert!(half(f32::MIN_POSITIVE) > 0.0);
    team.enter(|session| {
        session.run(&|_, _| assert!(half(f32::MIN_POSITIVE) == 0.0));
        assert!(half(f32::MIN_POSITIVE) == 0.0);
    });
    assert!(half(f32::MIN_POSITIVE) > 0.0);
}

#[test]
fn the_shared_team_is_made_once() {
    let threads = team().threads();
    assert!(threads >= 1);
    assert!(set_threads(threads + 1).is_err());
}

#[test]
fn spreading_does_every_item_once_and_says_where_it_goes_on() {
    for threads in [1, 2, 3] {
        let team = Team::new(threads);
        for (items, grain) in [(0, 8), (1, 8), (7, 8), (100, 8), (1000, 32)] {
            let seen: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            team.enter(|session| {
                session.spread(items, grain, &|range, next| {
                    assert!(range.start.is_multiple_of(grain) && next <= items);
                    range.for_each(|i| _ = seen[i].fetch_add(1, Ordering::Relaxed));
                });
            });
            assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{items} items on {threads} threads");
        }
    }
}
