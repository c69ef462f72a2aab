//! Numbers of names.

/// The same number for the same name, from 0 on; one that was freed is given again.
#[derive(Default)]
pub(crate) struct Numbers(Vec<Option<String>>);

impl Numbers {
    /// The number of a name, where it has one.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|n| n.as_deref() == Some(name))
    }

    /// The number of a name, a new one where it has none.
    pub(crate) fn of(&mut self, name: &str) -> u16 {
        let place = self.find(name).unwrap_or_else(|| {
            let free = self.0.iter().position(Option::is_none);
            let place = free.unwrap_or(self.0.len());
            match self.0.get_mut(place) {
                Some(room) => *room = Some(name.to_owned()),
                None => self.0.push(Some(name.to_owned())),
            }
            place
        });
        u16::try_from(place).unwrap_or(u16::MAX)
    }

    /// The name of a number, where it has one.
    pub(crate) fn name(&self, number: usize) -> Option<&str> {
        self.0.get(number)?.as_deref()
    }

    /// A name is used no more.
    pub(crate) fn free(&mut self, number: u16) {
        if let Some(room) = self.0.get_mut(usize::from(number)) {
            *room = None;
        }
    }

    /// How many names have numbers.
    pub(crate) fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }
}
