//! Which of many things in a row hold a wanted transaction, asked as seldom as can be. Pure but for the questions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::error::Result;

/// Tells which of `count` things can hold something wanted, by what was executed before each.
///
/// `executed(i)` is how many of the wanted transactions were executed before thing `i` (for `count`: behind the last);
/// it never falls from one to the next. Where it is the same before and behind a run of things, none of them holds any,
/// and no question is asked inside of the run. `None` where nobody knows: then the neighbours are taken.
pub(super) async fn narrow(
    count: usize,
    mut executed: impl AsyncFnMut(usize) -> Result<Option<u64>>,
) -> Result<Vec<bool>> {
    let mut wanted = vec![false; count];
    let mut answers: HashMap<usize, Option<u64>> = HashMap::new();
    let mut runs = Vec::from([(0, count)]);
    while let Some((start, end)) = runs.pop() {
        let run = start..end;
        if run.is_empty() {
            continue;
        }
        let mut ends = [None; 2];
        for (end, at) in ends.iter_mut().zip([run.start, run.end]) {
            *end = match answers.entry(at) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => *unknown.insert(executed(at).await?),
            };
        }
        let [before, behind] = ends;
        if before.is_some() && before == behind {
            continue;
        }
        if run.len() == 1 {
            if let Some(wanted) = wanted.get_mut(run.start) {
                *wanted = true;
            }
            continue;
        }
        let middle = run.start.midpoint(run.end);
        runs.extend([(run.start, middle), (middle, run.end)]);
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn one_wanted_among_many_takes_few_questions() {
        let mut asked = 0;
        let wanted = narrow(10_000, async |at| {
            asked += 1;
            Ok(Some(u64::from(at > 7000)))
        })
        .await
        .unwrap();
        assert_eq!(wanted.iter().position(|wanted| *wanted), Some(7000));
        assert_eq!(wanted.iter().filter(|wanted| **wanted).count(), 1);
        assert!(asked < 40, "{asked} questions");
    }

    proptest! {
        #[test]
        fn none_that_holds_something_is_left_out(steps in prop::collection::vec((0_u64..2, prop::bool::weighted(0.8)), 0..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let executed = |at: usize| steps[..at].iter().map(|(step, _)| step).sum::<u64>();
            let known = |at: usize| steps.get(at).is_none_or(|(_, known)| *known);
            let wanted = runtime.block_on(narrow(steps.len(), async |at| Ok(known(at).then(|| executed(at))))).unwrap();
            for (at, (step, _)) in steps.iter().enumerate() {
                prop_assert!(wanted[at] || *step == 0, "{at} of {steps:?}");
                if known(at) && known(at + 1) {
                    prop_assert_eq!(wanted[at], *step > 0, "{} of {:?}", at, &steps);
                }
            }
        }
    }
}
