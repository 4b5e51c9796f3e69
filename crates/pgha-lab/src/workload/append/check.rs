//! Whether a history can have happened to lists that only grow: pure, in about linear time.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use serde::Serialize;

use super::{
    Element, Fate, Key, Lists, Operation,
    history::{Count, History},
};

/// Something that cannot have happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// An acknowledged append is not in its list.
    Lost {
        /// The append.
        append: Operation,
    },
    /// An element is in its list more than once.
    Duplicated {
        /// The list.
        key: Key,
        /// The element.
        element: Element,
        /// Where it is, the first element's place being 0.
        places: [usize; 2],
    },
    /// A client was told that its append did not happen, and it is in the list.
    Undead {
        /// The append.
        append: Operation,
    },
    /// A client saw a list that the final one does not continue: what it saw was taken back.
    Diverged {
        /// What saw it.
        read: Operation,
        /// Where the lists part.
        place: usize,
        /// What the client saw there; at least one of the two is something.
        saw: Option<Element>,
        /// The append of that.
        append: Option<Operation>,
        /// What is there at the end.
        kept: Option<Element>,
    },
    /// A client saw less than was known before it asked, or than it had appended itself: it asked a server that was not
    /// the primary any more. One whose lease is over may answer so until it is fenced; the lease promises that this is
    /// done before another leads.
    Backwards {
        /// What saw too little.
        read: Operation,
        /// What had ended before that started.
        earlier: Operation,
        /// How many elements that had shown or made.
        least: usize,
    },
    /// An element that nobody appended to this list, or not yet.
    ThinAir {
        /// The list.
        key: Key,
        /// The element.
        element: Element,
        /// Who saw it; nobody if it is in the final list.
        read: Option<Operation>,
        /// The append that came only later.
        append: Option<Operation>,
    },
}

impl Anomaly {
    /// When it happened; what is known only from the final lists comes last.
    fn when(&self) -> Duration {
        match self {
            Self::Lost { append } | Self::Undead { append } => append.ended,
            Self::Diverged { read, .. } | Self::Backwards { read, .. } | Self::ThinAir { read: Some(read), .. } => {
                read.ended
            }
            Self::Duplicated { .. } | Self::ThinAir { read: None, .. } => Duration::MAX,
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { append } => write!(f, "lost: {append}"),
            Self::Duplicated { key, element, places: [first, second] } => {
                write!(f, "duplicated: {element} is in list {key} at places {first} and {second}")
            }
            Self::Undead { append } => write!(f, "there all the same: {append}"),
            Self::Diverged { read, place, saw, append, kept } => {
                write!(f, "diverged: {read} has {} at place {place}", Place(*saw))?;
                if let Some(append) = append.filter(|append| append != read) {
                    write!(f, ", from {append},")?;
                }
                write!(f, " where the final list has {}", Place(*kept))
            }
            Self::Backwards { read, earlier, least } => {
                write!(f, "back in time: {read}, although it had {} after {earlier}", Count(*least))
            }
            Self::ThinAir { key, element, read, append } => {
                write!(f, "out of thin air: {element} is in ")?;
                match read {
                    Some(read) => write!(f, "{read}")?,
                    None => write!(f, "the final list {key}")?,
                }
                match append {
                    Some(append) => write!(f, ", before {append}"),
                    None => write!(f, ", and nobody appended it"),
                }
            }
        }
    }
}

/// What is at a place of a list.
struct Place(Option<Element>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(element) => write!(f, "{element}"),
            None => f.write_str("nothing"),
        }
    }
}

/// All that is wrong with a history, given the lists at its end; earliest first.
pub(super) fn check(history: &History, kept: &Lists) -> Vec<Anomaly> {
    let mut by_key: BTreeMap<Key, Vec<usize>> = kept.keys().map(|key| (*key, Vec::new())).collect();
    for (place, operation) in history.operations().iter().enumerate() {
        by_key.entry(operation.key).or_default().push(place);
    }
    let mut found = Vec::new();
    for (key, operations) in by_key {
        let list = kept.get(&key).map_or(&[][..], Vec::as_slice);
        Final::new(history, key, list, &operations, &mut found).check(&operations);
    }
    found.sort_by_key(Anomaly::when);
    found
}

/// One list at the end, and what is known of it.
struct Final<'check> {
    history: &'check History,
    key: Key,
    list: &'check [Element],
    appends: BTreeMap<Element, &'check Operation>,
    /// Where each element is first.
    places: HashMap<Element, usize>,
    found: &'check mut Vec<Anomaly>,
}

/// An operation that saw or made so many elements of the final list.
struct View<'check> {
    operation: &'check Operation,
    /// How many it saw, if it saw any.
    seen: Option<usize>,
    /// How many there were at its end, as far as it knows.
    least: usize,
}

impl<'check> Final<'check> {
    fn new(
        history: &'check History,
        key: Key,
        list: &'check [Element],
        operations: &[usize],
        found: &'check mut Vec<Anomaly>,
    ) -> Self {
        let append = |place: &usize| {
            let operation = history.operations().get(*place)?;
            Some((operation.append?.element, operation))
        };
        // The first place of an element is what counts: inserted last, it stays.
        let places = list.iter().enumerate().rev().map(|(place, element)| (*element, place)).collect();
        Self { history, key, list, appends: operations.iter().filter_map(append).collect(), places, found }
    }

    fn check(mut self, operations: &[usize]) {
        self.check_elements();
        self.check_fates();
        let views: Vec<View<'_>> = operations.iter().filter_map(|place| self.view(*place)).collect();
        self.check_causes(&views);
        self.check_order(&views);
    }

    /// Everything in the list was appended, and once.
    fn check_elements(&mut self) {
        for (place, element) in self.list.iter().enumerate() {
            let (key, element) = (self.key, *element);
            if let Some(first) = self.places.get(&element).copied()
                && first != place
            {
                self.found.push(Anomaly::Duplicated { key, element, places: [first, place] });
            } else if !self.appends.contains_key(&element) {
                self.found.push(Anomaly::ThinAir { key, element, read: None, append: None });
            }
        }
    }

    /// What was acknowledged is in the list, and what was refused is not.
    fn check_fates(&mut self) {
        for (element, operation) in &self.appends {
            let is_there = self.places.contains_key(element);
            match operation.append.map(|append| append.fate) {
                Some(Fate::Acknowledged) if !is_there => self.found.push(Anomaly::Lost { append: **operation }),
                Some(Fate::Refused) if is_there => self.found.push(Anomaly::Undead { append: **operation }),
                _ => {}
            }
        }
    }

    /// What an operation tells of the final list. One that saw another list is an anomaly and tells nothing.
    fn view(&mut self, place: usize) -> Option<View<'check>> {
        let history = self.history;
        let operation = history.operations().get(place)?;
        let seen = history.seen(place);
        if let Some(seen) = seen
            && !self.list.starts_with(seen)
        {
            self.diverged(operation, seen);
            return None;
        }
        let made = operation.append.filter(|append| append.fate == Fate::Acknowledged);
        let made = made.and_then(|append| self.places.get(&append.element)).map_or(0, |place| place + 1);
        let seen = seen.map(<[Element]>::len);
        Some(View { operation, seen, least: seen.unwrap_or(0).max(made) })
    }

    fn diverged(&mut self, read: &Operation, seen: &[Element]) {
        let place = self.list.iter().zip(seen).take_while(|(kept, saw)| kept == saw).count();
        let saw = seen.get(place).copied();
        let append = saw.and_then(|element| self.appends.get(&element)).map(|append| **append);
        let (key, read) = (self.key, *read);
        self.found.push(match saw {
            Some(element) if append.is_none() => Anomaly::ThinAir { key, element, read: Some(read), append: None },
            _ => Anomaly::Diverged { read, place, saw, append, kept: self.list.get(place).copied() },
        });
    }

    /// Nothing was seen before its append began.
    fn check_causes(&mut self, views: &[View<'_>]) {
        // For each place, the append that began last of those up to there.
        let mut last: Option<&Operation> = None;
        let mut began = Vec::with_capacity(self.list.len());
        for element in self.list {
            let append = self.appends.get(element).copied();
            last = [last, append].into_iter().flatten().max_by_key(|append| append.started);
            began.push(last);
        }
        for view in views {
            let append = view.seen.and_then(|seen| seen.checked_sub(1)).and_then(|place| *began.get(place)?);
            if let Some((append, Some(element))) = append.map(|append| (append, append.append.map(|made| made.element)))
                && view.operation.ended < append.started
            {
                let (read, append) = (Some(*view.operation), Some(*append));
                self.found.push(Anomaly::ThinAir { key: self.key, element, read, append });
            }
        }
    }

    /// Who starts after another has ended sees at least as much. Those that overlap may see each other or not.
    fn check_order(&mut self, views: &[View<'_>]) {
        let (mut by_start, mut by_end): (Vec<_>, Vec<_>) =
            (views.iter().filter(|view| view.seen.is_some()).collect(), views.iter().collect());
        by_start.sort_by_key(|view| view.operation.started);
        by_end.sort_by_key(|view| view.operation.ended);
        let mut by_end = by_end.into_iter().peekable();
        let mut most: Option<&View<'_>> = None;
        for view in by_start {
            while let Some(earlier) = by_end.next_if(|earlier| earlier.operation.ended < view.operation.started) {
                if most.is_none_or(|most| most.least < earlier.least) {
                    most = Some(earlier);
                }
            }
            // Its own append counts, too.
            let most = most.filter(|most| most.least >= view.least).unwrap_or(view);
            if view.seen.is_some_and(|seen| seen < most.least) {
                let (read, earlier, least) = (*view.operation, *most.operation, most.least);
                self.found.push(Anomaly::Backwards { read, earlier, least });
            }
        }
    }
}

#[cfg(test)]
mod tests;
