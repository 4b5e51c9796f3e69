//! Each anomaly is found, a history of real lists never is one, and a spoiled one always is.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::workload::append::Append;

/// A history of list 0, where time is counted in seconds.
#[derive(Default)]
struct Story(History);

impl Story {
    fn append(mut self, element: Element, fate: Fate, (started, ended): (u64, u64)) -> Self {
        self.0.record(operation(0, Some(Append { element, fate }), started, ended), None);
        self
    }

    fn read(mut self, list: &[Element], (started, ended): (u64, u64)) -> Self {
        self.0.record(operation(0, None, started, ended), Some(list.to_vec()));
        self
    }

    /// What is wrong with it, in words.
    fn check(&self, list: &[Element]) -> Vec<String> {
        check(&self.0, &Lists::from([(0, list.to_vec())])).iter().map(ToString::to_string).collect()
    }
}

fn operation(key: Key, append: Option<Append>, started: u64, ended: u64) -> Operation {
    let [started, ended] = [started, ended].map(Duration::from_secs);
    Operation { client: 7, key, append, seen: None, started, ended }
}

/// 1 and 2 are acknowledged, 3 is in doubt and 4 refused.
fn story() -> Story {
    Story::default()
        .append(1, Fate::Acknowledged, (0, 10))
        .append(2, Fate::Acknowledged, (20, 30))
        .append(3, Fate::InDoubt, (40, 50))
        .append(4, Fate::Refused, (60, 70))
}

const NOTHING: [String; 0] = [];

#[test]
fn what_can_have_happened_is_no_anomaly() {
    assert_eq!(story().check(&[1, 2]), NOTHING);
    assert_eq!(story().check(&[1, 2, 3]), NOTHING);
    // The append in doubt happens after the client gave it up; 1 is committed before its client knows.
    let story = story().read(&[1], (0, 5)).read(&[1, 2], (80, 90)).read(&[1, 2, 3], (80, 90)).read(&[], (0, 100));
    assert_eq!(story.check(&[1, 2, 3]), NOTHING);
}

#[test]
fn a_lost_append_is_found() {
    assert_eq!(
        story().check(&[1, 3]),
        ["lost: the acknowledged append of 2 to list 0 (client 7, 20.000000 s to 30.000000 s)"]
    );
    let nothing_kept = check(&story().0, &Lists::new());
    assert!(matches!(nothing_kept[..], [Anomaly::Lost { .. }, Anomaly::Lost { .. }]), "{nothing_kept:?}");
}

#[test]
fn a_duplicated_append_is_found() {
    assert_eq!(story().check(&[1, 2, 1]), ["duplicated: 1 is in list 0 at places 0 and 2"]);
}

#[test]
fn a_refused_append_in_the_list_is_found() {
    assert_eq!(
        story().check(&[1, 2, 4]),
        ["there all the same: the refused append of 4 to list 0 (client 7, 60.000000 s to 70.000000 s)"]
    );
}

#[test]
fn a_list_that_was_taken_back_is_found() {
    // Seen and gone: the client was never told that 3 counts, but others were.
    assert_eq!(
        story().read(&[1, 2, 3], (80, 90)).check(&[1, 2]),
        [
            "diverged: the read of list 0 that showed 3 elements (client 7, 80.000000 s to 90.000000 s) has 3 at place 2, \
          from the in-doubt append of 3 to list 0 (client 7, 40.000000 s to 50.000000 s), where the final list has \
          nothing"
        ]
    );
    // An aborted read, and the order turned round.
    for (saw, kept) in [(&[1, 2, 4][..], &[1, 2, 3][..]), (&[2, 1], &[1, 2]), (&[1, 1], &[1, 2])] {
        let story = story().read(saw, (80, 90));
        let found = check(&story.0, &Lists::from([(0, kept.to_vec())]));
        assert!(matches!(found[..], [Anomaly::Diverged { .. }]), "{found:?}");
    }
}

#[test]
fn a_read_that_goes_back_in_time_is_found() {
    // Less than what was acknowledged.
    assert_eq!(
        story().read(&[1], (31, 32)).check(&[1, 2]),
        ["back in time: the read of list 0 that showed 1 element (client 7, 31.000000 s to 32.000000 s), although it \
          had 2 elements after the acknowledged append of 2 to list 0 (client 7, 20.000000 s to 30.000000 s)"]
    );
    // Less than another read: what is in doubt stays once it was seen.
    let story = story().read(&[1, 2, 3], (80, 90)).read(&[1, 2], (91, 92)).read(&[1, 2], (85, 95));
    let found = story.check(&[1, 2, 3]);
    assert!(matches!(&found[..], [one] if one.contains("it had 3 elements after the read of list 0")), "{found:?}");
}

#[test]
fn an_append_that_does_not_see_itself_is_found() {
    let mut story = Story::default();
    let append = Some(Append { element: 1, fate: Fate::Acknowledged });
    story.0.record(operation(0, append, 0, 10), Some(Vec::new()));
    let found = check(&story.0, &Lists::from([(0, vec![1])]));
    assert!(matches!(found[..], [Anomaly::Backwards { least: 1, .. }]), "{found:?}");
}

#[test]
fn elements_out_of_thin_air_are_found() {
    assert_eq!(story().check(&[1, 2, 5]), ["out of thin air: 5 is in the final list 0, and nobody appended it"]);
    let found = story().read(&[1, 2, 5], (80, 90)).check(&[1, 2]);
    assert!(matches!(&found[..], [one] if one.ends_with("and nobody appended it")), "{found:?}");
    let found = story().read(&[1, 2], (12, 15)).check(&[1, 2]);
    assert!(matches!(&found[..], [one] if one.contains("before the acknowledged append of 2")), "{found:?}");
    // What belongs to one list is nothing to another.
    let found = check(&story().0, &Lists::from([(0, vec![1, 2]), (1, vec![2])]));
    assert!(matches!(found[..], [Anomaly::ThinAir { key: 1, element: 2, .. }]), "{found:?}");
}

#[test]
fn the_earliest_anomaly_comes_first() {
    let story = story().read(&[], (33, 34)).read(&[], (31, 32));
    let found = check(&story.0, &Lists::from([(0, vec![1, 2])]));
    assert!(found.is_sorted_by_key(Anomaly::when) && found.len() == 2, "{found:?}");
}

#[test]
fn long_histories_are_checked_in_time() {
    let (mut history, mut lists) = (History::default(), Lists::new());
    for step in 0..100_000_u64 {
        let (key, element) = (step / 600, step.cast_signed());
        let list = lists.entry(key.cast_signed()).or_default();
        list.push(element);
        let append = Append { element, fate: Fate::Acknowledged };
        history.record(operation(key.cast_signed(), Some(append), 2 * step, 2 * step + 1), Some(list.clone()));
    }
    let started = std::time::Instant::now();
    assert_eq!(check(&history, &lists), []);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// One operation on real lists, which takes effect at a moment of its own.
#[derive(Debug, Clone)]
struct Step {
    key: Key,
    kind: Kind,
    /// How long before its effect it starts, and how long after it ends.
    around: (u64, u64),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Append { fate: Fate, happens: bool },
    Read,
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => Just(Kind::Append { fate: Fate::Acknowledged, happens: true }),
        1 => any::<bool>().prop_map(|happens| Kind::Append { fate: Fate::InDoubt, happens }),
        1 => Just(Kind::Append { fate: Fate::Refused, happens: false }),
        3 => Just(Kind::Read),
    ];
    (0..3_i64, kind, (0..40_u64, 0..40_u64)).prop_map(|(key, kind, around)| Step { key, kind, around })
}

/// Ten seconds between two effects: what takes longer overlaps with others.
fn moment(place: usize) -> u64 {
    100 + 10 * place as u64
}

/// What clients of real lists do and see.
fn play(steps: &[Step]) -> (History, Lists) {
    let (mut history, mut lists) = (History::default(), Lists::new());
    for (place, Step { key, kind, around: (before, after) }) in steps.iter().enumerate() {
        let (now, element) = (moment(place), i64::try_from(place).expect("few"));
        let list = lists.entry(*key).or_default();
        let (append, ended) = match *kind {
            Kind::Read => (None, now + after),
            Kind::Append { fate, happens } => {
                if happens {
                    list.push(element);
                }
                // Given up before it happens, maybe.
                let ended = if fate == Fate::InDoubt { now - before + after } else { now + after };
                (Some(Append { element, fate }), ended)
            }
        };
        let shows = append.is_none_or(|append| append.fate == Fate::Acknowledged);
        history.record(operation(*key, append, now - before, ended), shows.then(|| list.clone()));
    }
    (history, lists)
}

/// Some steps with one list that has elements for sure, read completely when all else has ended.
fn any_story() -> impl Strategy<Value = (History, Lists, u64)> {
    vec(any_step(), 1..60).prop_map(|mut steps| {
        let append = Kind::Append { fate: Fate::Acknowledged, happens: true };
        steps.extend([append, append].map(|kind| Step { key: 0, kind, around: (5, 5) }));
        let (mut history, lists) = play(&steps);
        let end = moment(steps.len()) + 100;
        history.record(operation(0, None, end, end + 1), Some(lists[&0].clone()));
        (history, lists, end + 2)
    })
}

/// Changes what is left of list 0.
fn spoil(lists: &mut Lists, how: impl FnOnce(&mut Vec<Element>)) {
    how(lists.get_mut(&0).expect("a list"));
}

proptest! {
    #[test]
    fn real_lists_are_never_accused(steps in vec(any_step(), 0..120)) {
        let (history, lists) = play(&steps);
        prop_assert_eq!(check(&history, &lists), []);
    }

    #[test]
    fn a_dropped_element_is_always_found((history, mut lists, _) in any_story(), which: Index) {
        // Acknowledged or not: the last read has seen it.
        spoil(&mut lists, |list| {
            list.remove(which.index(list.len()));
        });
        prop_assert!(!check(&history, &lists).is_empty());
    }

    #[test]
    fn a_doubled_element_is_always_found(
        (history, mut lists, _) in any_story(), which: Index, place: Index,
    ) {
        spoil(&mut lists, |list| list.insert(place.index(list.len() + 1), list[which.index(list.len())]));
        let found = check(&history, &lists);
        prop_assert!(found.iter().any(|one| matches!(one, Anomaly::Duplicated { .. })), "{:?}", found);
    }

    #[test]
    fn exchanged_elements_are_always_found((history, mut lists, _) in any_story(), which: Index) {
        spoil(&mut lists, |list| {
            let place = which.index(list.len() - 1);
            list.swap(place, place + 1);
        });
        let found = check(&history, &lists);
        prop_assert!(found.iter().any(|one| matches!(one, Anomaly::Diverged { .. })), "{:?}", found);
    }

    #[test]
    fn a_late_read_of_less_is_always_found((mut history, lists, now) in any_story(), which: Index) {
        let list = &lists[&0];
        let part = list[..which.index(list.len())].to_vec();
        history.record(operation(0, None, now, now + 1), Some(part));
        let found = check(&history, &lists);
        prop_assert!(matches!(found[..], [Anomaly::Backwards { .. }]), "{:?}", found);
    }

    #[test]
    fn a_refusal_that_was_none_is_always_found((mut history, mut lists, now) in any_story()) {
        let append = Append { element: Element::MAX, fate: Fate::Refused };
        history.record(operation(0, Some(append), now, now + 1), None);
        spoil(&mut lists, |list| list.push(Element::MAX));
        let found = check(&history, &lists);
        prop_assert!(matches!(found[..], [Anomaly::Undead { .. }]), "{:?}", found);
    }
}
