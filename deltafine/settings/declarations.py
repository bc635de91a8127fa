"""The declaration of every setting: its type, default, limits and help. All else is made from these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from deltafine.settings.declaring import Names, PathText, Seconds, Share, setting
from deltafine.settings.rule_names import RuleText
from deltafine.settings.score_names import ScoreText

BUDGET, MODEL, DELTAS, DATA = "Budget", "Model", "Delta layers", "Data"
TRAINING, RUN, VARIATION = "Training", "The run", "Variation of training clips"


class Declarations(BaseModel):
    """All settings, without what they mean together."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: PathText = setting(help="Path of the pretrained Keras model.", panel=MODEL, metavar="FILE")
    task: Literal["auto", "classification", "regression", "distill", "outputs"] = setting(
        "auto",
        help="What the output means. See [what the output means](refine.md#what-the-output-means); auto goes by the "
        "labels, distill leaves them aside and follows the original's answers, outputs has labels for some of several "
        "outputs.",
        panel=MODEL,
        common=True,
    )
    clip_output: Literal["mean", "last", "per-frame"] | None = setting(
        None,
        help="What is returned for a clip. Only for a model that takes single frames.",
        panel=MODEL,
        common=True,
        unset="mean",
    )
    size: str | None = setting(
        None, help="Frame size, if the model takes any.", panel=MODEL, common=True, metavar="HxW"
    )
    rescale: Literal["0..1", "-1..1", "caffe", "torch"] | None = setting(
        None,
        help="Scale pixels for the model. `caffe` (BGR less the means of ImageNet) and `torch` are modes of Keras' own "
        "preprocessing.",
        panel=MODEL,
        common=True,
        unset="0..255",
    )
    score: ScoreText | None = setting(
        None,
        help="What answers are judged by, in place of accuracy. `mean-iou` for maps, or `MODULE:FUNCTION` of "
        "[a score of your own](refine.md#a-score-of-your-own).",
        panel=MODEL,
        common=True,
        metavar="SCORE",
        unset="accuracy; the error of numbers; fidelity without labels",
    )
    output_weight: Names = setting(
        (),
        help="How much outputs count. Each NAME=WEIGHT, 1 where none is given; of a model with several outputs. See "
        "[several outputs](refine.md#several-outputs).",
        panel=MODEL,
        metavar="NAME=W",
        unset="1 each",
    )
    input: Names = setting(
        (),
        help="Further inputs that are the same in all frames. Each NAME=VALUE; others are columns of the list of "
        "videos. "
        "See [further inputs](refine.md#further-inputs).",
        panel=MODEL,
        common=True,
        metavar="NAME=VALUE",
        unset="columns",
    )
    custom_objects: Names = setting(
        (),
        help="Your own layer or function. All forms are described under [models](cli.md#models).",
        panel=MODEL,
        common=True,
        metavar="MODULE:NAME",
    )
    unsafe_lambda: bool = setting(
        False, help="Run Python code that the file holds. Only if you trust its author.", panel=MODEL, common=True
    )

    data: PathText = setting(help="Path of the videos. See [Your videos](data.md).", panel=DATA, metavar="DIR")
    streams: PathText | None = setting(
        None,
        help="Continuous videos to measure on. All of them if they have no split of their own, except those that are "
        "trained on. If not given: the test videos of the data, or else its validation videos.",
        panel=DATA,
        common=True,
        metavar="DIR",
        unset="the data",
    )
    classes: Names | None = setting(
        None,
        help="Class names in the order of the outputs.",
        panel=DATA,
        common=True,
        metavar="A,B,...",
        unset="the [layout's own order](data.md#layouts)",
    )
    layout: str | None = setting(
        None,
        help="Layout of the data on disk. See [layouts](data.md#layouts).",
        panel=DATA,
        common=True,
        metavar="NAME",
        unset="detected",
    )
    split: int = setting(1, ge=1, help="Which split lists to read. Only if there are several.", panel=DATA, common=True)
    validation: Share = setting(
        0.2,
        ge=0,
        le=1,
        help="Fraction of videos to validate on. Only if the data has no split of its own.",
        panel=DATA,
        common=True,
    )
    max_bad_videos: int = setting(0, ge=0, help="How many videos may be unreadable.", panel=DATA, common=True)
    max_frames: int | None = setting(
        None,
        ge=1,
        help="Most frames of a video file. One with more counts as unreadable. For files that you do not trust.",
        panel=DATA,
        unset="any number",
    )
    max_seconds: float | None = setting(
        None,
        gt=0,
        help="Most seconds of processor time to read through a video file. The same.",
        panel=DATA,
        unset="any time",
    )
    allow_outside: bool = setting(False, help="Allow lists to name files outside the data.", panel=DATA)
    fps: float | None = setting(
        None,
        gt=0,
        le=1000,
        help="Frames per second to take. For training and for measuring.",
        panel=DATA,
        unset="all frames",
    )
    cache: PathText | None = setting(
        None,
        help="Directory for decoded frames. If not given, the run directory keeps them until the run is finished. See "
        "[the cache](data.md#the-cache).",
        panel=DATA,
        common=True,
        metavar="DIR",
        unset="in the run",
    )

    at: Names = setting(
        ("worthwhile",),
        help="Insert only after these layers. The pattern `default` stands for [the default "
        "choice](refine.md#where-delta-layers-go), to add to it; a run writes it down as `worthwhile`. "
        "`activations-only` stands for the default of earlier versions, and `uncovered` for the inputs of layers that "
        "this one leaves out.",
        panel=DELTAS,
        common=True,
        metavar="PATTERN",
        unset="default",
    )
    skip: Names = setting((), help="Do not insert after these layers.", panel=DELTAS, common=True, metavar="PATTERN")
    method: Literal["deltafine", "paper", "l1"] = setting(
        "deltafine",
        help="How thresholds and events are trained. `paper` and `l1` are baselines.",
        panel=DELTAS,
        common=True,
    )
    rule: RuleText = setting(
        "send-on-delta",
        help="What counts as an event. `send-on-delta`, `quantize`, or `MODULE:NAME` of "
        "[a rule of your own](contributing.md#a-rule).",
        panel=DELTAS,
        common=True,
        metavar="RULE",
    )
    granularity: Literal["element", "pixel"] = setting(
        "element", help="What is sent together.", panel=DELTAS, common=True
    )
    threshold_per: Literal["layer", "channel", "neuron"] = setting(
        "layer", help="What has a threshold of its own.", panel=DELTAS
    )
    relative_threshold: float | None = setting(
        None,
        gt=0,
        help="Threshold / RMS of the activations. The same for all layers.",
        panel=DELTAS,
        unset="calibrated for each layer",
    )
    max_divergence: float = setting(
        0.02,
        gt=0,
        help="Nats per frame that calibration may spend. The mean Kullback-Leibler divergence between the calibrated "
        "model's answers and the original's; what `epochs = 0` spends where it saves most.",
        panel=BUDGET,
        metavar="NATS",
    )
    training_divergence: float | None = setting(
        None,
        gt=0,
        help="The same for the thresholds that training starts from. It may be more, since training regains what "
        "they lose.",
        panel=BUDGET,
        metavar="NATS",
        unset="0.02 for classes, 0.2 with more than 16 delta layers; 0.05 for numbers",
    )
    penalty: float | None = setting(
        None,
        ge=0,
        help="λ: what an event costs. If not given, λ follows what is lost on the validation videos; with a "
        "[budget](refine.md#budgets), this is what it begins with.",
        panel=BUDGET,
        common=True,
        unset="steered from 60 for classes, 2 for numbers",
    )
    target_macs: Share | None = setting(
        None, gt=0, lt=1, help="MAC density to reach. On the validation streams.", panel=BUDGET, common=True
    )
    target_sparsity: Share | None = setting(
        None, gt=0, lt=1, help="Delta sparsity to reach. On the validation streams.", panel=BUDGET, common=True
    )
    target_pixels: Share | None = setting(
        None, gt=0, lt=1, help="Pixel density to reach. On the validation streams.", panel=BUDGET, common=True
    )
    max_accuracy_drop: Share | None = setting(
        None,
        ge=0,
        le=1,
        help="Accuracy that may be lost for sparsity. On the validation videos; the run saves as much as that allows.",
        panel=BUDGET,
        common=True,
        unset="0.01",
    )

    epochs: int | None = setting(
        None,
        ge=0,
        help="Passes over the clips; 0 only calibrates. An epoch may have several `passes`.",
        panel=TRAINING,
        common=True,
        unset="as many as take 1500 steps",
    )
    time: Seconds | None = setting(
        None,
        gt=0,
        help="How long the whole run may take, such as 20m. The epochs follow from it; it is no deadline that cuts a "
        "run short. Not together with `epochs`.",
        panel=TRAINING,
        common=True,
        unset="as long as the epochs take",
    )
    passes: int | None = setting(
        None,
        ge=1,
        help="Passes over the clips in an epoch. Each epoch is validated.",
        panel=TRAINING,
        unset="as many as take 50 steps; 1 where `epochs` is given",
    )
    seed: int = setting(
        0, ge=0, lt=2**32, help="Seed of the split and of everything random.", panel=TRAINING, common=True
    )
    frames: int | None = setting(
        None, ge=2, help="Length T of a clip.", panel=TRAINING, common=True, unset="the model's, or 8"
    )
    frame_stride: int = setting(
        1,
        ge=1,
        help="Frames from one frame of a training clip to the next. What is measured takes every frame, or those of "
        "`fps`.",
        panel=TRAINING,
    )
    clip_stride: int | None = setting(
        None,
        ge=1,
        help="Frames from one clip to the next in a video.",
        panel=TRAINING,
        unset="`frames` times `frame_stride`",
    )
    clips_per_video: int | None = setting(
        None,
        ge=1,
        help="Training clips of every video and epoch.",
        panel=TRAINING,
        unset="all that `clip_stride` gives",
    )
    sampling: Literal["uniform", "random"] = setting(
        "uniform",
        help="Where these clips lie. `uniform` spreads them evenly over the video, `random` draws them again in every "
        "epoch.",
        panel=TRAINING,
    )
    start: Literal["auto", "carried", "noise", "exact"] | None = setting(
        "auto",
        help="State that training clips start from. `carried`: what the clip before left; `noise`: one generated for "
        "each clip; `exact`: none. Only for a rule with memory. `auto`: noise for classification and for the "
        "baselines, else carried; carried for classes with more than 16 delta layers.",
        panel=TRAINING,
    )
    batch: int = setting(8, ge=1, help="Clips in a training step.", panel=TRAINING, common=True)
    learning_rate: float | None = setting(
        None,
        gt=0,
        help="Learning rate of the weights. Warmed up and then lowered along a cosine; above 0 in every step.",
        panel=TRAINING,
        common=True,
        unset="0.001 for classes; 0.0005 for numbers, and classes with more than 16 delta layers",
    )
    threshold_learning_rate: float = setting(
        0.0, ge=0, help="Of the thresholds' logarithms. 0 trains none.", panel=TRAINING
    )
    warmup: Share = setting(
        0.3, ge=0, lt=1, help="Fraction of the training in which learning rates and λ rise.", panel=TRAINING
    )
    recalibrate: int | None = setting(
        None,
        ge=0,
        help="How often the thresholds are calibrated again. Spread evenly over the epochs, the last time at their "
        "end; needs `start` carried, a model of single frames and numba. See [the stages of a "
        "run](how-it-works.md#the-stages-of-a-run).",
        panel=TRAINING,
        unset="after each quarter of the epochs but the last, where it can be done",
    )
    weight_decay: float = setting(
        0.0, ge=0, help="Of the weights. Never of thresholds, biases and normalisation.", panel=TRAINING
    )
    clip_norm: float = setting(10.0, gt=0, help="Global norm to which gradients are clipped.", panel=TRAINING)
    distill: Share | None = setting(
        None,
        ge=0,
        le=1,
        help="Fraction of the loss that follows the original's answers.",
        panel=TRAINING,
        unset="0.5; 1 for numbers of a single output; 0 for the baselines",
    )
    distill_features: float = setting(
        0.0,
        ge=0,
        help="Weight of the original's features in the loss. What goes into the last two layers with MACs is kept "
        "alike, in units of how much it varies.",
        panel=TRAINING,
    )
    average: Share | None = setting(
        None,
        ge=0,
        le=1,
        help="Fraction of the training over which weights are averaged. Exponentially, into those that are validated "
        "and kept.",
        panel=TRAINING,
        unset="1/8; 0 for the baselines",
    )
    freeze: Names = setting(
        (), help="Layers whose weights stay as they are.", panel=TRAINING, common=True, metavar="PATTERN"
    )
    unfreeze: Names = setting(
        (),
        help="Frozen layers to train. Layers that the model [has frozen](refine.md#frozen-weights); `freeze` and "
        "`freeze_batchnorm` override it.",
        panel=TRAINING,
        common=True,
        metavar="PATTERN",
    )
    freeze_batchnorm: bool | None = setting(
        None,
        help="Keep statistics and scales of BatchNormalization as they are. In training they are then those of the "
        "model, not of the batch.",
        panel=TRAINING,
        unset="true for numbers, and classes with more than 16 delta layers; else false",
    )
    optimizer: Literal["adamw", "sgd"] = setting(
        "adamw", help="Of the weights. `sgd` has Nesterov momentum 0.9.", panel=TRAINING
    )
    accumulate: int = setting(
        1,
        ge=1,
        help="Steps whose gradients are averaged before the weights change. No more than the training has.",
        panel=TRAINING,
    )
    mixed_precision: bool = setting(
        False,
        help="Train with activations in bfloat16. Weights stay in float32; faster on devices that compute in bfloat16, "
        "slower elsewhere. The refined model computes in float32 again.",
        panel=TRAINING,
    )
    early_stopping: int | None = setting(
        None,
        ge=1,
        help="End after so many epochs without a better model. A better one is more accurate or sparser.",
        panel=TRAINING,
        common=True,
        metavar="EPOCHS",
    )

    on_nan: Literal["stop", "rollback"] = setting(
        "stop",
        help="What to do when the loss diverges. `rollback` goes back to the last checkpoint and halves the rates; see "
        "[stopping and resuming](refine.md#stopping-and-resuming).",
        panel=RUN,
    )
    deterministic: bool = setting(
        False,
        help="Use only operations that give the same bits each time. Slower on GPUs; some models cannot be trained so.",
        panel=RUN,
    )
    checkpoint_minutes: float = setting(
        10.0,
        gt=0,
        help="Minutes from one checkpoint to the next. A run that is killed loses no more.",
        panel=RUN,
        metavar="MINUTES",
    )
    control: bool = setting(
        False,
        help="Also train the original without delta layers, to compare with. See [the same "
        "training without delta layers](metrics/held-control.md#the-same-training-without-delta-layers).",
        panel=RUN,
        common=True,
    )
    sensitivity_frames: int = setting(
        256,
        ge=0,
        help="Frames that quality against sensitivity is measured on. Of the streams, for each of 6 numbers that "
        "multiply all [thresholds](runtime.md#sensitivity); 0 leaves it out.",
        panel=RUN,
    )
    tensorboard: bool = setting(False, help="Write logs for TensorBoard into the run.", panel=RUN)

    flip: bool = setting(
        False,
        help="Mirror every second clip. If clips continue each other: every second place of the batch, for an epoch.",
        panel=VARIATION,
    )
    crop: Share = setting(1.0, gt=0, le=1, help="Fraction of height and width that is cut out.", panel=VARIATION)
    scale: Share = setting(0.0, ge=0, le=1, help="How far that fraction varies.", panel=VARIATION)
    brightness: Share = setting(
        0.0, ge=0, le=1, help="How far brightness varies, as a fraction of the full range.", panel=VARIATION
    )
    contrast: Share = setting(0.0, ge=0, le=1, help="How far contrast varies.", panel=VARIATION)
    saturation: Share = setting(0.0, ge=0, le=1, help="How far the saturation of colours varies.", panel=VARIATION)
    mix: Share | None = setting(
        None,
        ge=0,
        le=1,
        help="Fraction of the clips that get a rectangle of another clip. These follow the original's answers alone.",
        panel=VARIATION,
        unset="0; 0.5 for classes with more than 16 delta layers",
    )
