//! Which documents a question may find. Made once for each state of the store, not for each question.

use std::collections::{HashMap, HashSet};

use super::stem;
use crate::store::Listed;

/// The compressed documents, by the stem of their text.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Several documents may have the same text.
    places: HashMap<u64, Vec<Place>>,
    /// Documents of each group.
    groups: HashMap<String, Members>,
}

#[derive(Debug)]
struct Place {
    id: Box<str>,
    group: u32,
}

#[derive(Debug)]
struct Members {
    number: u32,
    documents: usize,
    /// Of the documents' texts: few enough to stay in the cache while a search goes through every passage there is.
    stems: HashSet<u64>,
}

/// The part of the listing that a question asks.
#[derive(Clone, Copy)]
pub(super) struct Asked<'l> {
    listing: &'l Listing,
    /// `None` for every group.
    group: Option<&'l Members>,
    documents: usize,
}

impl Listing {
    pub(super) fn of(documents: Vec<Listed>) -> Self {
        let mut listing = Self::default();
        for Listed { id, group, text, .. } in documents.into_iter().filter(|document| document.compressed) {
            let next = u32::try_from(listing.groups.len()).unwrap_or(u32::MAX);
            let new = || Members { number: next, documents: 0, stems: HashSet::new() };
            let members = listing.groups.entry(group).or_insert_with(new);
            members.documents += 1;
            members.stems.insert(stem(&text));
            let place = Place { id: id.into(), group: members.number };
            listing.places.entry(stem(&text)).or_default().push(place);
        }
        listing
    }

    /// All documents, or those of a group; `None` if there are none.
    pub(super) fn asked(&self, group: Option<&str>) -> Option<Asked<'_>> {
        let (group, documents) = match group {
            Some(name) => self.groups.get(name).map(|members| (Some(members), members.documents))?,
            None => (None, self.groups.values().map(|members| members.documents).sum()),
        };
        (documents > 0).then_some(Asked { listing: self, group, documents })
    }
}

impl<'l> Asked<'l> {
    /// How many documents there are.
    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    /// Whether one of them has the text of this stem.
    pub(super) fn holds(&self, stem: u64) -> bool {
        match self.group {
            Some(members) => members.stems.contains(&stem),
            None => self.listing.places.contains_key(&stem),
        }
    }

    /// Those that have the text of this stem.
    pub(super) fn ids(&self, stem: u64) -> impl Iterator<Item = &'l str> {
        let group = self.group;
        let places = self.listing.places.get(&stem).into_iter().flatten();
        places.filter(move |place| group.is_none_or(|members| members.number == place.group)).map(|place| &*place.id)
    }
}
