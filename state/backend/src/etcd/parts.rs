//! Operations in parts that etcd takes.

/// Operations that are divided in the order in which they come.
pub(super) struct Parts<T> {
    most: usize,
    most_bytes: usize,
    done: Vec<Vec<T>>,
    current: Vec<T>,
    /// Of the current part.
    bytes: usize,
}

impl<T> Parts<T> {
    /// Parts of this many operations and bytes at most; an operation that has more bytes is alone.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, done: Vec::new(), current: Vec::new(), bytes: 0 }
    }

    /// Adds an operation of this many bytes.
    pub(super) fn add(&mut self, operation: T, bytes: usize) {
        let full = self.current.len() >= self.most || self.bytes + bytes > self.most_bytes;
        if full && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.bytes = 0;
        }
        self.current.push(operation);
        self.bytes += bytes;
    }

    /// The parts: at least one, which is empty when nothing was added.
    pub(super) fn finish(mut self) -> Vec<Vec<T>> {
        self.done.push(self.current);
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sizes: &[usize]) -> Vec<Vec<usize>> {
        let mut parts = Parts::new(3, 10);
        sizes.iter().for_each(|size| parts.add(*size, *size));
        parts.finish()
    }

    #[test]
    fn no_part_has_more_operations_or_bytes_than_are_allowed() {
        assert_eq!(parts(&[]), [Vec::<usize>::new()]);
        assert_eq!(parts(&[1, 1, 1, 1]), [vec![1, 1, 1], vec![1]]);
        assert_eq!(parts(&[4, 6, 7, 3]), [vec![4, 6], vec![7, 3]]);
        assert_eq!(parts(&[4, 7, 4]), [vec![4], vec![7], vec![4]], "what begins a part counts in it");
        assert_eq!(parts(&[1, 11, 1]), [vec![1], vec![11], vec![1]]);
    }
}
