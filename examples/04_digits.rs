//! A convolutional network on digits that Kiln draws itself, saved and loaded again.
//!
//! `cargo run --release --example 04_digits`

use kiln::{nn::ModelFile, prelude::*};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let data = Dataset::digits(1, 4000, 1000)?;
    let model = Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(16, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(32, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dropout::new(0.2))
        .add(Dense::new(10));
    let mut trainer = Trainer::new(&device, model, Adam::default(), Loss::CrossEntropy)?;
    let fit = Fit { epochs: 4, batch_size: 32, validation: Some(&data.test), ..Fit::default() };
    for report in trainer.fit(&data.train, fit)?.epochs {
        let test = report.validation.and_then(|scores| scores.accuracy).unwrap_or_default();
        println!(
            "epoch {}: loss {:.4}, test accuracy {:.2} %, {:.0} images/s",
            report.epoch,
            report.train.loss,
            100.0 * test,
            report.images_per_second
        );
    }
    let path = std::env::temp_dir().join("kiln-example-digits.safetensors");
    trainer.save(&path)?;
    let again = ModelFile::read(&path)?.trainer(&device)?;
    assert_eq!(again.evaluate(&data.test)?, trainer.evaluate(&data.test)?);
    println!("saved to {} and loaded again: the same scores", path.display());
    Ok(())
}
