//! Transfer learning: what another network has learned, as far as it fits.

use kiln_kernel::Shape;

use crate::{ModelFile, Network, NnError, Trainer, optimizer::matches, words::nearest};

/// What [`ModelFile::load_matching`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Parameters that were taken over.
    pub loaded: Vec<String>,
    /// Parameters of the network that keep what they were drawn with, and why.
    pub skipped: Vec<Skipped>,
    /// Tensors of the file that the network has no parameter for.
    pub unused: Vec<String>,
}

/// A parameter that was not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// What the file has under that name, if anything.
    pub found: Option<Shape>,
}

impl ModelFile {
    /// Sets those parameters of a trainer that the file has under the same name and in the same shape, and says what it
    /// did not: PyTorch's `load_state_dict(strict=False)`, which fails on other shapes.
    ///
    /// # Errors
    /// If nothing fits, an element is no number, or the device fails.
    pub fn load_matching(&self, trainer: &Trainer) -> Result<Transferred, NnError> {
        let mut done = Transferred::default();
        let segments = trainer.store().segments().list();
        for segment in segments {
            let found = self.tensors().iter().find(|(name, ..)| *name == segment.name);
            match found {
                Some((name, shape, values)) if *shape == segment.shape => {
                    self.check_values(name, values)?;
                    trainer.set_parameter(name, values)?;
                    done.loaded.push(name.clone());
                }
                found => done.skipped.push(Skipped {
                    name: segment.name.clone(),
                    shape: segment.shape.clone(),
                    found: found.map(|(_, shape, _)| shape.clone()),
                }),
            }
        }
        let known = |name: &String| segments.iter().any(|segment| segment.name == *name);
        done.unused = self.tensors().iter().map(|t| t.0.clone()).filter(|name| !known(name)).collect();
        if done.loaded.is_empty() {
            let names = |names: Vec<String>| names.join(", ");
            return Err(NnError::file(
                self.path(),
                format!(
                    "none of its tensors fits by name and shape; it has {}, the network {}",
                    names(self.tensors().iter().map(|(name, shape, _)| format!("{name} {shape}")).collect()),
                    names(segments.iter().map(|s| format!("{} {}", s.name, s.shape)).collect())
                ),
            ));
        }
        Ok(done)
    }
}

impl Network {
    /// Freezes the layers whose names match a pattern of `*` (any characters), `?` (one) and plain characters: training
    /// leaves their parameters as they are, and batch normalisation among them uses its running statistics. Keras'
    /// `layer.trainable = False`. The names of those with parameters.
    ///
    /// # Errors
    /// If no layer with parameters of its own matches.
    pub fn freeze(&mut self, pattern: &str) -> Result<Vec<String>, NnError> {
        let with_parameters: Vec<String> =
            self.summary()?.layers.into_iter().filter(|l| l.parameters > 0).map(|l| l.name).collect();
        let names: Vec<String> = self.named_layers().into_iter().map(|(name, _)| name).collect();
        let mut frozen = Vec::new();
        for (name, node) in names.iter().zip(self.layers_mut()) {
            let has_own = with_parameters.contains(name) && node.share.is_none();
            if has_own && matches(pattern.as_bytes(), name.as_bytes()) {
                node.trainable = false;
                frozen.push(name.clone());
            }
        }
        if frozen.is_empty() {
            let names: Vec<&str> = with_parameters.iter().map(String::as_str).collect();
            let near = nearest(pattern, &names);
            let names = if near.is_empty() { names } else { near };
            return Err(NnError::Settings(format!(
                "nothing to freeze: \"{pattern}\" matches no layer with parameters; there are {}",
                names.join(", ")
            )));
        }
        Ok(frozen)
    }

    /// The network without its last layers, for others in their place: `network.without_last(1).add(Dense::new(5))`
    /// classifies into five classes. Loss and names of the layers before stay.
    ///
    /// # Errors
    /// If it has fewer layers, or results to compare with the target ([`Network::output`]) are among them.
    pub fn without_last(mut self, layers: usize) -> Result<Self, NnError> {
        let all = self.layers().len();
        if layers > all {
            return Err(NnError::Settings(format!(
                "the network has {all} layers, not {layers} to leave out"
            )));
        }
        let names: Vec<String> = self.named_layers().into_iter().map(|(name, _)| name).collect();
        let gone = &names[all - layers..];
        if let Some(output) = self.outputs().iter().find(|output| gone.contains(&output.layer)) {
            let message =
                format!("layer \"{}\" is a result of the network; name another result", output.layer);
            return Err(NnError::Settings(message));
        }
        self.truncate(all - layers);
        Ok(self)
    }
}
