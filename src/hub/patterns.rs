//! Patterns as a tree of tokens: finding those that match a channel costs its length, not their number.

use crate::event::Channel;
use std::collections::HashMap;

/// A map from patterns to values that can be asked for all that match a channel.
pub(super) struct PatternTree<T> {
    root: Node<T>,
    count: usize,
}

struct Node<T> {
    literal: HashMap<Box<str>, Node<T>, foldhash::fast::RandomState>,
    any: Option<Box<Node<T>>>,
    /// The pattern that ends here with `>`.
    rest: Option<T>,
    /// The pattern that ends here.
    value: Option<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literal: HashMap::default(), any: None, rest: None, value: None }
    }
}

impl<T> Default for PatternTree<T> {
    fn default() -> Self {
        Self { root: Node::default(), count: 0 }
    }
}

impl<T> PatternTree<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The place of a pattern's value. The caller fills it: an entry that was empty counts as one more.
    pub(super) fn entry(&mut self, pattern: &str) -> &mut Option<T> {
        let mut node = &mut self.root;
        let mut rest = false;
        for token in pattern.split('.') {
            match token {
                ">" => rest = true,
                "*" => node = node.any.get_or_insert_default(),
                literal => node = node.literal.entry(literal.into()).or_default(),
            }
        }
        let place = if rest { &mut node.rest } else { &mut node.value };
        if place.is_none() {
            self.count += 1;
        }
        place
    }

    /// Takes a pattern out, with the branches that only it needed.
    pub(super) fn remove(&mut self, pattern: &str) {
        let tokens: Vec<&str> = pattern.split('.').collect();
        if self.root.remove(&tokens) {
            self.count -= 1;
        }
    }

    /// Calls `found` for every value whose pattern matches.
    pub(super) fn each_match<'a>(&'a self, channel: &Channel, found: &mut impl FnMut(&'a T)) {
        self.root.each_match(channel.as_str(), found);
    }

    /// All values.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let mut nodes = vec![&self.root];
        let mut values = Vec::with_capacity(self.count);
        while let Some(node) = nodes.pop() {
            values.extend(node.rest.iter().chain(&node.value));
            nodes.extend(node.literal.values());
            nodes.extend(node.any.as_deref());
        }
        values.into_iter()
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.any.is_none() && self.rest.is_none() && self.value.is_none()
    }

    fn remove(&mut self, tokens: &[&str]) -> bool {
        match tokens {
            [] => self.value.take().is_some(),
            [">"] => self.rest.take().is_some(),
            ["*", rest @ ..] => {
                let Some(node) = &mut self.any else { return false };
                let removed = node.remove(rest);
                if node.is_empty() {
                    self.any = None;
                }
                removed
            }
            [literal, rest @ ..] => {
                let Some(node) = self.literal.get_mut(*literal) else { return false };
                let removed = node.remove(rest);
                if node.is_empty() {
                    self.literal.remove(*literal);
                }
                removed
            }
        }
    }

    /// `tokens` is what is left of the channel and never empty. The recursion is as deep as the channel has
    /// tokens (at most 128) and each level branches at most twice, but only along patterns that exist.
    fn each_match<'a>(&'a self, tokens: &str, found: &mut impl FnMut(&'a T)) {
        if let Some(value) = &self.rest {
            found(value);
        }
        let (token, rest) = match tokens.split_once('.') {
            Some((token, rest)) => (token, Some(rest)),
            None => (tokens, None),
        };
        for node in self.literal.get(token).into_iter().chain(self.any.as_deref()) {
            match rest {
                Some(rest) => node.each_match(rest, found),
                None => {
                    if let Some(value) = &node.value {
                        found(value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Pattern;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_tree_finds_what_the_patterns_say(
            patterns in prop::collection::hash_set("(a|b|\\*)(\\.(a|b|\\*)){0,3}(\\.>)?", 0..20),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            channel in "(a|b|c)(\\.(a|b|c)){0,4}",
        ) {
            let mut kept: Vec<String> = patterns.into_iter().collect();
            let mut tree = PatternTree::default();
            for pattern in &kept {
                *tree.entry(pattern) = Some(pattern.clone());
            }
            for index in removed {
                if !kept.is_empty() {
                    let pattern = kept.remove(index.index(kept.len()));
                    tree.remove(&pattern);
                }
            }
            prop_assert_eq!(tree.len(), kept.len());
            prop_assert_eq!(tree.is_empty(), kept.is_empty());
            let channel = Channel::parse(&channel).unwrap();
            let mut found = Vec::new();
            tree.each_match(&channel, &mut |pattern: &String| found.push(pattern.clone()));
            let mut expected: Vec<_> = kept
                .iter()
                .filter(|pattern| Pattern::parse(pattern).unwrap().matches(&channel))
                .cloned()
                .collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
            for pattern in &kept {
                tree.remove(pattern);
            }
            prop_assert!(tree.root.is_empty());
        }
    }
}
