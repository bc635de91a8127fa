"""Ways in which collections and libraries lay out their videos, and what each is read as: one table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from deltafine.errors import DeltafineError
from deltafine.video import Dataset, open_dataset
from tests.video.painted import write_video

AB = ("a", "b")


def clips(*names: str) -> list[str]:
    """Names of files from a pattern: ``train/{a,b}/{1,2}.mp4`` is four."""
    found: list[str] = []
    for name in names:
        match = re.search(r"\{([^{}]*)\}", name)
        if match is None:
            found.append(name)
        else:
            found += clips(*(name[: match.start()] + one + name[match.end() :] for one in match[1].split(",")))
    return found


@dataclass
class Case:
    """A layout, and what it is read as.

    Attributes:
        videos: Patterns of videos; a name that ends with / is a folder of images.
        files: Lists and other files, with their text.
        layout: What the summary begins with.
        classes: In the order of the labels.
        shown: Split and class of every video that is used: ``train a``. A drawn split is *.
        said: Patterns of the notes, one each.
        options: Of ``open_dataset``.
        path: What is opened, below the folder.
        refused: A pattern of the error, where there is one.
        missing: Videos that are listed and not there.
    """

    videos: list[str]
    shown: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    layout: str = "folder per class"
    files: dict[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    options: dict[str, object] = field(default_factory=dict)
    path: str = ""
    refused: str = ""
    missing: tuple[str, ...] = ()


def each(split_and_class: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(clips(*names), split_and_class)


TWO_SPLITS = clips("{train,val}/{a,b}/{1,2}.mp4")
AS_TWO_SPLITS = {
    **each("train a", "train/a/{1,2}.mp4"),
    **each("train b", "train/b/{1,2}.mp4"),
    **each("validation a", "val/a/{1,2}.mp4"),
    **each("validation b", "val/b/{1,2}.mp4"),
}
FLAT_UCF = clips("v_{Archery,Biking}_g{01,02}_c01.avi")
NO_VALIDATION = r"^The data has no validation split: its test split is what is validated on\.$"
SOMETHING = [
    {"id": n, "label": "moving cup", "template": f"{t} [something]"} for n, t in (("101", "Moving"), ("102", "Holding"))
]
SOMETHING_VALIDATION = [{"id": "103", "label": "holding pen", "template": "Holding [something]"}]

CASES = {
    # Folders
    "splits of classes beside folders without videos": Case(
        [*TWO_SPLITS],
        AS_TWO_SPLITS,
        AB,
        files={"annotations/readme.md": "", "logs/run.log": "", "__MACOSX/train/a/._1.mp4": "", "empty/.keep": ""},
    ),
    "splits called train_videos and val_videos": Case(
        clips("{train_videos,val_videos}/{a,b}/1.mp4"),
        {
            **each("train a", "train_videos/a/1.mp4"),
            **each("train b", "train_videos/b/1.mp4"),
            **each("validation a", "val_videos/a/1.mp4"),
            **each("validation b", "val_videos/b/1.mp4"),
        },
        AB,
    ),
    "splits called videos_train and videos_val (mmaction2)": Case(
        clips("{videos_train,videos_val}/{a,b}/1.mp4"),
        {
            **each("train a", "videos_train/a/1.mp4"),
            **each("train b", "videos_train/b/1.mp4"),
            **each("validation a", "videos_val/a/1.mp4"),
            **each("validation b", "videos_val/b/1.mp4"),
        },
        AB,
    ),
    "splits called Train-Set, Validation_256 and TestData": Case(
        clips("{Train-Set,Validation_256,TestData}/a/1.mp4"),
        {
            "Train-Set/a/1.mp4": "train a",
            "Validation_256/a/1.mp4": "validation a",
            "TestData/a/1.mp4": "test a",
        },
        ("a",),
    ),
    "train, val and test: the test split is kept apart": Case(
        clips("{train,val,test}/a/1.mp4"),
        {"train/a/1.mp4": "train a", "val/a/1.mp4": "validation a", "test/a/1.mp4": "test a"},
        ("a",),
    ),
    "train and test: the test split validates, and that is said": Case(
        clips("{train,test}/a/1.mp4"),
        {"train/a/1.mp4": "train a", "test/a/1.mp4": "validation a"},
        ("a",),
        said=(NO_VALIDATION,),
    ),
    "splits beside another folder with videos": Case(
        [*TWO_SPLITS, "replacement/r.mp4"],
        AS_TWO_SPLITS,
        AB,
        said=(r"^Found replacement, not used because it is in no split \(train, val\)\.$",),
    ),
    "a class called like a split": Case(
        clips("{bus,car,train}/{1,2}.mp4"),
        refused=r"has the folder 'train', which is called like a split, beside bus, car: .*--classes bus,car,train",
    ),
    "a class called like a split that the user names": Case(
        clips("{bus,car,train}/1.mp4"),
        {"bus/1.mp4": "* bus", "car/1.mp4": "* car", "train/1.mp4": "* train"},
        ("bus", "car", "train"),
        options={"classes": ("bus", "car", "train")},
    ),
    "a split in a split": Case(
        clips("train/{train,val}/{a,b}/1.mp4"),
        refused=r"has folders called like splits where the class folders are \(train, val\)",
    ),
    "test videos beside others in no folder": Case(
        clips("{1,2,3}.mp4", "test/4.mp4"),
        refused=r"has the folder 'test', which is called like a split, beside 1.mp4, 2.mp4, 3.mp4",
    ),
    "splits without classes": Case(
        clips("{train,val}/{1,2}.mp4"),
        {**each("train", "train/{1,2}.mp4"), **each("validation", "val/{1,2}.mp4")},
        layout="unlabelled videos",
    ),
    "a stray video beside class folders": Case(
        [*clips("{a,b}/{1,2}.mp4"), "intro.mp4"],
        {**each("* a", "a/{1,2}.mp4"), **each("* b", "b/{1,2}.mp4")},
        AB,
        said=(r"^Found intro\.mp4 beside the class folders, not used because it is in none of them\.$",),
    ),
    "stray videos beside the class folders of a split": Case(
        [*TWO_SPLITS, "val/intro.mp4"],
        AS_TWO_SPLITS,
        AB,
        said=(r"^Found val/intro\.mp4 beside the class folders, not used",),
    ),
    "stray pictures beside class folders": Case(
        clips("{a,b}/{1,2}.mp4"),
        {**each("* a", "a/{1,2}.mp4"), **each("* b", "b/{1,2}.mp4")},
        AB,
        files={"plot1.png": "", "plot2.png": ""},
    ),
    "more videos beside folders than in them": Case(
        clips("{1,2,3}.mp4", "{more,others}/4.mp4"),
        each("*", "{1,2,3}.mp4", "{more,others}/4.mp4"),
        layout="unlabelled videos",
        said=(r"^Found the folders more, others, not used as classes because 3 videos lie beside them\.$",),
    ),
    "class folders in videos/ beside annotations/": Case(
        clips("videos/{a,b}/1.mp4"),
        {"videos/a/1.mp4": "* a", "videos/b/1.mp4": "* b"},
        AB,
        files={"annotations/readme.txt": "a text"},
    ),
    "class folders in hmdb51_org/ without lists": Case(
        clips("hmdb51_org/{a,b}/1.avi"),
        {"hmdb51_org/a/1.avi": "* a", "hmdb51_org/b/1.avi": "* b"},
        AB,
    ),
    "videos of images in JPEGImages/480p (DAVIS)": Case(
        clips("JPEGImages/480p/{bear,bus}/"),
        each("*", "JPEGImages/480p/{bear,bus}"),
        layout="unlabelled videos",
    ),
    "all classes in one folder of another name": Case(
        clips("mine/{a,b}/1.mp4"),
        each("* mine", "mine/{a,b}/1.mp4"),
        ("mine",),
        said=(
            r"^All videos are in the one folder mine, .* if the folders in it \(a, b\) are the classes, give .*mine\.$",
        ),
    ),
    "splits in the class folders": Case(
        clips("{a,b}/{train,val}/{1,2}.mp4"),
        {
            **each("train a", "a/train/{1,2}.mp4"),
            **each("train b", "b/train/{1,2}.mp4"),
            **each("validation a", "a/val/{1,2}.mp4"),
            **each("validation b", "b/val/{1,2}.mp4"),
        },
        AB,
        said=(r"^The splits are those of the folders in the class folders\.$",),
    ),
    "splits in some class folders": Case(
        clips("a/{train,val}/1.mp4", "b/1.mp4"),
        {**each("* a", "a/{train,val}/1.mp4"), **each("* b", "b/1.mp4")},
        AB,
        said=(r"^Found folders called like splits in class folders, not used because not all videos are in one\.$",),
    ),
    "flat UCF101": Case(
        FLAT_UCF,
        {**each("* Archery", *FLAT_UCF[:2]), **each("* Biking", *FLAT_UCF[2:])},
        ("Archery", "Biking"),
        "classes in file names (UCF101)",
    ),
    "flat UCF101 in split folders": Case(
        clips("{train,test}/v_{Archery,Biking}_g01_c01.avi"),
        {
            **each("train Archery", "train/v_Archery_g01_c01.avi"),
            **each("train Biking", "train/v_Biking_g01_c01.avi"),
            **each("validation Archery", "test/v_Archery_g01_c01.avi"),
            **each("validation Biking", "test/v_Biking_g01_c01.avi"),
        },
        ("Archery", "Biking"),
        "classes in file names (UCF101)",
        said=(NO_VALIDATION,),
    ),
    # Official lists
    "UCF101TrainTestSplits-RecognitionTask, flat videos": Case(
        FLAT_UCF[1:3],
        {FLAT_UCF[1]: "train Archery", FLAT_UCF[2]: "validation Biking"},
        ("Biking", "Archery"),
        "UCF101 layout, split 1",
        {
            f"UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist/{name}": text
            for name, text in {
                "classInd.txt": "1 Biking\n2 Archery\n",
                "trainlist01.txt": f"Archery/{FLAT_UCF[1]} 2\n",
                "testlist01.txt": f"Biking/{FLAT_UCF[2]}\n",
                "trainlist02.txt": "",
                "testlist02.txt": "",
            }.items()
        },
        (NO_VALIDATION,),
    ),
    "UCF101's lists in a folder of any name": Case(
        clips("UCF-101/{a,b}/1.avi"),
        {"UCF-101/a/1.avi": "train a", "UCF-101/b/1.avi": "validation b"},
        ("b", "a"),
        "UCF101 layout, split 1",
        {"mine/classInd.txt": "1 b\n2 a\n", "mine/trainlist01.txt": "a/1.avi 2\n", "mine/testlist01.txt": "b/1.avi\n"},
        (NO_VALIDATION,),
    ),
    "UCF101's lists beside the folder that is given": Case(
        clips("UCF-101/{a,b}/v_{1,2}.avi"),
        {**each("train a", "a/v_1.avi"), **each("train b", "b/v_1.avi"), **each("validation a", "a/v_2.avi")},
        ("b", "a"),
        "UCF101 layout, split 1",
        {
            "ucfTrainTestlist/classInd.txt": "1 b\n2 a\n",
            "ucfTrainTestlist/trainlist01.txt": "a/v_1.avi 2\nb/v_1.avi 1\n",
            "ucfTrainTestlist/testlist01.txt": "a/v_2.avi\n",
        },
        (NO_VALIDATION, r"^The lists lie beside the data folder: \.\./ucfTrainTestlist/.*\.txt"),
        path="UCF-101",
    ),
    "UCF101's lists beside the folder, with videos that are not there": Case(
        clips("UCF-101/{a,b}/v_{1,2}.avi"),
        {**each("* a", "a/v_{1,2}.avi"), **each("* b", "b/v_{1,2}.avi")},
        AB,
        files={
            "ucfTrainTestlist/classInd.txt": "1 b\n2 a\n",
            "ucfTrainTestlist/trainlist01.txt": "a/v_1.avi 2\nb/v_9.avi 1\n",
            "ucfTrainTestlist/testlist01.txt": "a/v_2.avi\n",
        },
        path="UCF-101",
        said=(r"^Found \.\./ucf.*, not used because of what is wrong there: .*2 videos of which 1 are not below",),
    ),
    "HMDB51's lists beside the folder that is given": Case(
        clips("hmdb51_org/{a,b}/{1,2}.avi"),
        {"a/1.avi": "train a", "a/2.avi": "validation a", "b/1.avi": "train b"},
        AB,
        "HMDB51 layout, split 1",
        {
            "testTrainMulti_7030_splits/a_test_split1.txt": "1.avi 1 \n2.avi 2 \n",
            "testTrainMulti_7030_splits/b_test_split1.txt": "1.avi 1 \n2.avi 0 \n",
        },
        (NO_VALIDATION, r"^The lists lie beside the data folder: \.\./test.*/a_test_split1\.txt, "),
        path="hmdb51_org",
    ),
    "Kinetics' lists beside the folder that is given": Case(
        clips("clips/{x_000001_000011,y_000001_000011}.mp4"),
        {"x_000001_000011.mp4": "train a", "y_000001_000011.mp4": "validation b"},
        AB,
        "Kinetics layout",
        {
            f"annotations/{split}.csv": f"label,youtube_id,time_start,time_end\n{label},{name},1,11\n"
            for split, label, name in (("train", "a", "x"), ("val", "b", "y"))
        },
        (r"^The lists lie beside the data folder: \.\./annotations/train\.csv, \.\./annotations/val\.csv\.$",),
        path="clips",
        options={"layout": None},
    ),
    "lists of splits beside the folder that is given": Case(
        clips("videos/{x,y,z}.mp4"),
        {"x.mp4": "train a", "y.mp4": "train b", "z.mp4": "validation a"},
        AB,
        "lists ../train.csv, ../val.csv",
        {"train.csv": "file,label\nvideos/x.mp4,a\nvideos/y.mp4,b\n", "val.csv": "file,label\nvideos/z.mp4,a\n"},
        (r"^The lists lie beside the data folder: \.\./train\.csv, \.\./val\.csv\.$",),
        path="videos",
    ),
    "labels in a folder beside the one that is given": Case(
        clips("videos/{x,y}.mp4"),
        {"x.mp4": "* a", "y.mp4": "* b"},
        AB,
        "lists ../annotations/labels.txt",
        {"annotations/labels.txt": "x.mp4 a\ny.mp4 b\n"},
        (r"^The lists lie beside the data folder: \.\./annotations/labels\.txt\.$",),
        path="videos",
    ),
    "splits beside class folders that are given": Case(
        clips("videos/{a,b}/{1,2}.mp4"),
        {**each("train a", "a/1.mp4"), **each("train b", "b/1.mp4"), **each("validation a", "a/2.mp4")},
        AB,
        "lists ../train.txt, ../val.txt",
        {"train.txt": "a/1.mp4\nb/1.mp4\n", "val.txt": "a/2.mp4\n"},
        (
            r"^1 video is in none of the lists \(train\.txt, val\.txt\), and not used\.$",
            r"^The lists lie beside the data folder: \.\./train\.txt, \.\./val\.txt\.$",
        ),
        path="videos",
    ),
    "lists beside a folder that has its own": Case(
        clips("videos/{x,y}.mp4"),
        {"x.mp4": "* a", "y.mp4": "* b"},
        AB,
        "lists labels.csv",
        {"videos/labels.csv": "file,label\nx.mp4,a\ny.mp4,b\n", "labels.csv": "file,label\nx.mp4,b\ny.mp4,b\n"},
        (r"^Found \.\./labels\.csv, not used because lists in the data folder go first\.$",),
        path="videos",
    ),
    "lists beside a folder that name few of its videos": Case(
        clips("videos/{one,two,three}.mp4"),
        each("*", "{one,two,three}.mp4"),
        layout="unlabelled videos",
        files={"labels.csv": "file,label\none.mp4,a\n"},
        said=(r"^Found \.\./labels\.csv, not used because most of the videos are not in there\.$",),
        path="videos",
    ),
    "lists beside a folder whose layout was chosen": Case(
        clips("videos/{one,two}.mp4"),
        each("*", "{one,two}.mp4"),
        layout="unlabelled videos",
        files={"labels.csv": "file,label\none.mp4,a\ntwo.mp4,b\n"},
        said=(r"^Found \.\./labels\.csv, not used because the layout 'unlabelled' was chosen\.$",),
        path="videos",
        options={"layout": "unlabelled"},
    ),
    "lists beside the folder, in the layout that was chosen": Case(
        clips("videos/{one,two}.mp4"),
        {"one.mp4": "* a", "two.mp4": "* b"},
        AB,
        "lists ../labels.csv",
        {"labels.csv": "file,label\none.mp4,a\ntwo.mp4,b\n"},
        (r"^The lists lie beside the data folder: \.\./labels\.csv\.$",),
        path="videos",
        options={"layout": "lists"},
    ),
    "a manifest beside the folder that is given": Case(
        clips("videos/{one,two}.mp4"),
        each("*", "{one,two}.mp4"),
        layout="unlabelled videos",
        files={"manifest.csv": "path,label,start,end\nvideos/one.mp4,a,0,1\n"},
        said=(r"^Found \.\./manifest\.csv, not used because it is not in the data folder \(it lists segments .*: ",),
        path="videos",
    ),
    "hmdb51_org with the lists as they are unpacked": Case(
        clips("hmdb51_org/{a,b}/{1,2}.avi"),
        {"hmdb51_org/a/1.avi": "train a", "hmdb51_org/a/2.avi": "validation a", "hmdb51_org/b/1.avi": "train b"},
        AB,
        "HMDB51 layout, split 1",
        {
            "test_train_splits/testTrainMulti_7030_splits/a_test_split1.txt": "1.avi 1 \n2.avi 2 \n",
            "test_train_splits/testTrainMulti_7030_splits/b_test_split1.txt": "1.avi 1 \n2.avi 0 \n",
        },
        (NO_VALIDATION,),
    ),
    "Kinetics with lists called as they like, and a test list without labels": Case(
        ["train/x_000001_000011.mp4", "val/y_000001_000011.mp4"],
        {"train/x_000001_000011.mp4": "train a", "val/y_000001_000011.mp4": "validation b"},
        AB,
        "Kinetics layout",
        {
            "annotations/kinetics_train.csv": "label,youtube_id,time_start,time_end,split\na,x,1,11,train\n",
            "annotations/kinetics_val.csv": "label,youtube_id,time_start,time_end\nb,y,1,11\n",
            "annotations/kinetics_test.csv": "youtube_id,time_start,time_end,split\nz,1,11,test\n",
        },
        (r"^Found annotations/kinetics_test\.csv, not used because its first line names no column of files\.$",),
    ),
    # Lists of others
    "Hugging Face's VideoFolder": Case(
        clips("{1,2}.mp4"),
        {"1.mp4": "* walk", "2.mp4": "* run"},
        ("run", "walk"),
        "lists metadata.csv",
        {"metadata.csv": "file_name,label,fps\n1.mp4,walk,25\n2.mp4,run,25\n"},
        (r"^metadata\.csv has the column 'fps', which is not used\.$",),
    ),
    "Hugging Face's VideoFolder with a list for each split": Case(
        clips("{train,validation,test}/{1,2}.mp4"),
        {
            **{f"train/{n}.mp4": f"train {c}" for n, c in ((1, "a"), (2, "b"))},
            **{f"validation/{n}.mp4": f"validation {c}" for n, c in ((1, "b"), (2, "a"))},
            **{f"test/{n}.mp4": f"test {c}" for n, c in ((1, "a"), (2, "b"))},
        },
        AB,
        "lists train/metadata.jsonl, validation/metadata.jsonl, test/metadata.jsonl",
        {
            f"{split}/metadata.jsonl": "\n".join(
                json.dumps({"file_name": f"{n}.mp4", "label": label}) for n, label in ((1, one), (2, two))
            )
            for split, one, two in (("train", "a", "b"), ("validation", "b", "a"), ("test", "a", "b"))
        },
    ),
    "Hugging Face's VideoFolder with one list that names the split folders": Case(
        clips("{train,test}/{1,2}.mp4"),
        {**each("train a", "train/{1,2}.mp4"), **each("validation b", "test/{1,2}.mp4")},
        AB,
        "lists metadata.csv",
        {"metadata.csv": "file_name;Label\ntrain/1.mp4;a\ntrain/2.mp4;a\ntest/1.mp4;b\ntest/2.mp4;b\n"},
        (NO_VALIDATION,),
    ),
    "a metadata.csv without labels beside class folders": Case(
        clips("{a,b}/{1,2}.mp4"),
        {**each("* a", "a/{1,2}.mp4"), **each("* b", "b/{1,2}.mp4")},
        AB,
        files={"metadata.csv": "file_name,caption\na/1.mp4,someone\n"},
        said=(r"^Found metadata\.csv, not used because it has no column of labels or splits \(it has 'file_name'",),
    ),
    "Keras' tutorial": Case(
        clips("{train,test}/v_{A,B}_g01_c01.avi"),
        {
            "train/v_A_g01_c01.avi": "train Punch",
            "train/v_B_g01_c01.avi": "train Archery",
            "test/v_A_g01_c01.avi": "validation Punch",
            "test/v_B_g01_c01.avi": "validation Archery",
        },
        ("Archery", "Punch"),
        "lists train.csv, test.csv",
        {
            f"{s}.csv": ",video_name,tag\n0,v_A_g01_c01.avi,Punch\n1,v_B_g01_c01.avi,Archery\n"
            for s in ("train", "test")
        },
        (NO_VALIDATION,),
    ),
    "mmaction2's lists of videos": Case(
        clips("{videos_train,videos_val}/{x,y}.mp4"),
        {
            "videos_train/x.mp4": "train run",
            "videos_train/y.mp4": "train walk",
            "videos_val/x.mp4": "validation walk",
            "videos_val/y.mp4": "validation run",
        },
        ("run", "walk", "sit"),
        "lists kinetics400_train_list_videos.txt, kinetics400_val_list_videos.txt",
        {
            "kinetics400_train_list_videos.txt": "x.mp4 0\ny.mp4 1\n",
            "kinetics400_val_list_videos.txt": "x.mp4 1\ny.mp4 0\n",
            "annotations/label_map.txt": "run\nwalk\nsit\n",
        },
    ),
    "mmaction2's lists of frames in folders": Case(
        clips("rawframes/{run/x,walk/y}/"),
        {"rawframes/run/x": "train 0", "rawframes/walk/y": "validation 1"},
        ("0", "1"),
        "lists ucf101_train_split_1_rawframes.txt, ucf101_val_split_1_rawframes.txt",
        {
            "ucf101_train_split_1_rawframes.txt": "run/x 2 0\n",
            "ucf101_val_split_1_rawframes.txt": "walk/y 2 1\n",
            "ucf101_train_split_2_rawframes.txt": "walk/y 2 1\n",
            "ucf101_val_split_2_rawframes.txt": "run/x 2 0\n",
        },
        (r"^Found ucf101_train_split_2_raw.* not used because it is of another split than 1 \(--split 2\)\.$",),
    ),
    "mmaction2's second division": Case(
        clips("videos/{run/x,walk/y}.avi"),
        {"videos/run/x.avi": "validation run", "videos/walk/y.avi": "train walk"},
        ("run", "walk"),
        "lists ucf101_train_split_2_videos.txt, ucf101_val_split_2_videos.txt",
        {
            **{
                f"ucf101_{s}_split_1_videos.txt": f"{n} {c}\n"
                for s, n, c in (("train", "run/x.avi", 0), ("val", "walk/y.avi", 1))
            },
            **{
                f"ucf101_{s}_split_2_videos.txt": f"{n} {c}\n"
                for s, n, c in (("train", "walk/y.avi", 1), ("val", "run/x.avi", 0))
            },
            "annotations/classInd.txt": "1 run\n2 walk\n",
        },
        (r"^Found ucf101_train_split_1_videos.* not used because it is of another split than 2 \(--split 1\)\.$",),
        options={"split": 2},
    ),
    "several labels for a video (mmaction2)": Case(
        clips("videos/{x,y}.mp4"),
        {"videos/x.mp4": "train", "videos/y.mp4": "validation"},
        layout="lists train_list_videos.txt, val_list_videos.txt",
        files={"train_list_videos.txt": "x.mp4 0 3 5\n", "val_list_videos.txt": "y.mp4 1\n"},
        said=(r"^Found labels in train_list.*, not used because a video has several there: the splits are used,",),
    ),
    "several labels for one video of many": Case(
        clips("videos/{w,x,y,z}.mp4"),
        files={"train_list_videos.txt": "w.mp4 1\nx.mp4 0 3 5\nz.mp4 1\n", "val_list_videos.txt": "y.mp4 1\n"},
        refused=r"train_list_videos\.txt, line 2, gives x\.mp4 several labels where most videos have one: give",
    ),
    "PyTorchVideo's CSV": Case(
        clips("clips/{x 1,y,z}.mp4"),
        {"clips/x 1.mp4": "train 0", "clips/y.mp4": "validation 2", "clips/z.mp4": "test 1"},
        ("0", "1", "2"),
        "lists train.csv, val.csv, test.csv",
        {"train.csv": "clips/x 1.mp4 0\n", "val.csv": "clips/y.mp4 2\n", "test.csv": "/other/machine/clips/z.mp4 1\n"},
    ),
    "a test list with -1 for labels that are not told": Case(
        clips("{x,y,z}.mp4"),
        {"x.mp4": "train 0", "y.mp4": "validation 1", "z.mp4": "test"},
        ("0", "1"),
        "lists train.csv, val.csv, test.csv",
        {"train.csv": "x.mp4 0\n", "val.csv": "y.mp4 1\n", "test.csv": "z.mp4 -1\n"},
        (r"^The label -1 is read as no label\.$",),
    ),
    "a list of labels that is called as a list of classes might be": Case(
        clips("{x,y}.mp4"),
        {"x.mp4": "* 1", "y.mp4": "* 0"},
        ("0", "1"),
        "lists labels.csv",
        {"labels.csv": "file,label\nx.mp4,1\ny.mp4,0\n", "class_notes.csv": "file,label\ngone.mp4,1\n"},
        (r"^Found class_notes\.csv, not used because no video that it names is there\.$",),
    ),
    "a text of numbers for each video beside class folders": Case(
        clips("{a,b}/{one,two}.mp4"),
        {**each("* a", "a/{one,two}.mp4"), **each("* b", "b/{one,two}.mp4")},
        AB,
        files={"speeds.txt": "a/one.mp4 10 20 30\nb/one.mp4 1 2 3\n"},
        said=(r"^Found speeds\.txt, not used because it gives a video several labels\.$",),
    ),
    "PyTorchVideo's CSV with classes from 1": Case(
        clips("{x,y}.mp4"),
        {"x.mp4": "train 1", "y.mp4": "validation 2"},
        ("1", "2"),
        "lists train.csv, val.csv",
        {"train.csv": "x.mp4 1\n", "val.csv": "y.mp4 2\n"},
        (r"^The labels begin at 1: class 1 is the model's first output\.$",),
    ),
    "Something-Something V2": Case(
        clips("20bn-something-something-v2/{101,102,103,104}.webm"),
        {
            "20bn-something-something-v2/101.webm": "train Moving something",
            "20bn-something-something-v2/102.webm": "train Holding something",
            "20bn-something-something-v2/103.webm": "validation Holding something",
            "20bn-something-something-v2/104.webm": "test",
        },
        ("Moving something", "Holding something", "Sitting"),
        "lists labels/train.json, labels/validation.json, labels/test.json",
        {
            "labels/labels.json": json.dumps({"Holding something": "1", "Moving something": "0", "Sitting": "2"}),
            "labels/train.json": json.dumps([*SOMETHING, {"id": "999", "template": "Sitting"}]),
            "labels/validation.json": json.dumps(SOMETHING_VALIDATION),
            "labels/test.json": json.dumps([{"id": "104"}]),
        },
        missing=("999",),
    ),
    "Something-Something V2 as it was first called": Case(
        clips("20bn-something-something-v2/{101,102,103}.webm"),
        {
            "20bn-something-something-v2/101.webm": "train Moving something",
            "20bn-something-something-v2/102.webm": "train Holding something",
            "20bn-something-something-v2/103.webm": "validation Holding something",
        },
        ("Holding something", "Moving something"),
        "lists something-something-v2-train.json, something-something-v2-validation.json",
        {
            "something-something-v2-labels.json": json.dumps({"Holding something": "0", "Moving something": "1"}),
            "something-something-v2-train.json": json.dumps(SOMETHING),
            "something-something-v2-validation.json": json.dumps(SOMETHING_VALIDATION),
            "something-something-v2-test.json": json.dumps([{"id": "104"}]),
        },
        (r"^Found something-something-v2-test\.json, not used because no video that it names is there\.$",),
    ),
    "Jester, frames in folders": Case(
        clips("20bn-jester-v1/{1,2}/"),
        {"20bn-jester-v1/1": "train Swiping Left", "20bn-jester-v1/2": "validation Doing other things"},
        ("Swiping Left", "Doing other things"),
        "lists jester-v1-train.csv, jester-v1-validation.csv",
        {
            "jester-v1-labels.csv": "Swiping Left\nDoing other things\n",
            "jester-v1-train.csv": "1;Swiping Left\n7;Swiping Left\n",
            "jester-v1-validation.csv": "2;Doing other things\n",
            "jester-v1-test.csv": "8\n9\n",
        },
        (r"^Found jester-v1-test\.csv, not used because no video that it names is there\.$",),
        missing=("7",),
    ),
    "Jester as on Kaggle": Case(
        clips("{Train/1,Validation/2,Test/3}/"),
        {"Train/1": "train Swiping Left", "Validation/2": "validation No gesture", "Test/3": "test"},
        ("No gesture", "1", "Swiping Left"),
        "lists Train.csv, Validation.csv, Test.csv",
        {
            "Train.csv": "video_id,label,frames,label_id\n1,Swiping Left,37,2\n",
            "Validation.csv": "video_id,label,frames,label_id\n2,No gesture,37,0\n",
            "Test.csv": "id,frames\n3,37\n",
        },
        (
            r"^Train\.csv has the column 'frames', which is not used\.$",
            r"^Validation\.csv has the column 'frames', which is not used\.$",
            r"^Test\.csv has the column 'frames', which is not used\.$",
        ),
    ),
    "Charades": Case(
        clips("Charades_v1_480/{AAA1,BBB2}.mp4"),
        files={
            f"Charades/Charades_v1_{s}.csv": f'id,subject,actions,length\n{n},X,"c092 11.9 21.2;c147 0.0 12.6",33\n'
            for s, n in (("train", "AAA1"), ("test", "BBB2"))
        },
        shown={"Charades_v1_480/AAA1.mp4": "train", "Charades_v1_480/BBB2.mp4": "validation"},
        layout="lists Charades/Charades_v1_train.csv, Charades/Charades_v1_test.csv",
        said=(
            NO_VALIDATION,
            r"^Found labels in Charades_v1_train\.csv, Charades_v1_test\.csv, not used because a video has several",
            r"^Charades_v1_train\.csv has the columns 'subject', 'length', which are not used\.$",
            r"^Charades_v1_test\.csv has the columns 'subject', 'length', which are not used\.$",
        ),
    ),
    "Charades without its labels": Case(
        clips("Charades_v1_480/{AAA1,BBB2}.mp4"),
        each("*", "Charades_v1_480/{AAA1,BBB2}.mp4"),
        layout="unlabelled videos",
        files={"Charades_v1_train.csv": "id,actions\nAAA1,c092 11.90 21.20\n"},
        options={"layout": "unlabelled"},
        said=(r"^Found Charades_v1_train\.csv, not used because",),
    ),
    "lists of names beside class folders": Case(
        clips("{a,b}/{1,2}.mp4"),
        {"a/1.mp4": "train a", "a/2.mp4": "validation a", "b/1.mp4": "train b"},
        AB,
        "lists train.txt, val.txt",
        {"train.txt": "a/1.mp4\nb/1.mp4\n", "val.txt": "a/2.mp4\n"},
        (r"^1 video is in none of the lists \(train\.txt, val\.txt\), and not used\.$",),
    ),
    "a list of labels in a folder beside that of the videos": Case(
        clips("clips/{1,2}.mp4"),
        {"clips/1.mp4": "* walk", "clips/2.mp4": "* run"},
        ("run", "walk"),
        "lists mine/tags.csv",
        {"mine/tags.csv": "Video Path\tTag\n1.mp4\twalk\n2.mp4\trun\n"},
    ),
    "labels of another kind beside class folders": Case(
        clips("{a,b}/1.mp4"),
        {"a/1.mp4": "* a", "b/1.mp4": "* b"},
        AB,
        files={"predictions.csv": "video,label\na/1.mp4,b\nb/1.mp4,b\n"},
        said=(r"^Found predictions\.csv, not used because the class folders go first: give its path to use it\.$",),
    ),
    "predictions in a folder beside videos without labels": Case(
        clips("{1,2}.mp4"),
        each("*", "{1,2}.mp4"),
        layout="unlabelled videos",
        files={"results/predictions.csv": "video,label\n1.mp4,b\n2.mp4,b\n"},
        said=(r"^Found results/predictions\.csv, not used because it is called like no list of labels: give its path",),
    ),
    "lists of kinds that are not read": Case(
        clips("{one,two}.mp4"),
        each("*", "{one,two}.mp4"),
        layout="unlabelled videos",
        files={
            "metadata.parquet": "",
            "splits/train_split.mat": "",
            "settings.yaml": "",
            "groundTruth/one.txt": "walk\nwalk\n",
            "groundTruth/two.txt": "run\nrun\n",
        },
        said=(
            r"^Found metadata\.parquet, splits/train_split\.mat, not used because such files are not read",
            r"^Found groundTruth/one\.txt, groundTruth/two\.txt, not used because labels in a file for each video",
        ),
    ),
    "a model beside class folders": Case(
        clips("{a,b}/1.mp4"),
        {"a/1.mp4": "* a", "b/1.mp4": "* b"},
        AB,
        files={"model.h5": "no videos"},
        said=(r"^Found an HDF5 file, not used because it is no data set of videos \(.*model\.h5 is not a sound",),
    ),
    "one split of several that is given alone": Case(
        clips("{train,val}/{a,b}/1.mp4"),
        {"a/1.mp4": "* a", "b/1.mp4": "* b"},
        AB,
        path="train",
        said=(r"^Found \.\./val beside the data folder, not used: give .*data for all splits\.$",),
    ),
    "lists that contradict each other": Case(
        clips("{1,2}.mp4"),
        files={"train.csv": "video_name,tag\n1.mp4,a\n1.mp4,b\n", "test.csv": "video_name,tag\n2.mp4,a\n"},
        refused=r"train\.csv, line 3, labels 1\.mp4 'b', which is 'a' in .*train\.csv, line 2: a video has one label",
    ),
    "two lists of everything": Case(
        clips("{1,2}.mp4"),
        files={"one.csv": "file,label\n1.mp4,a\n2.mp4,b\n", "two.csv": "file,label\n1.mp4,b\n2.mp4,a\n"},
        refused=r"has several lists of videos with labels \(one\.csv, two\.csv\): give the path of one",
    ),
    "a list that names a missing file": Case(
        clips("{1,2}.mp4"),
        {"1.mp4": "train a", "9.mp4": "train b", "2.mp4": "validation a"},
        AB,
        "lists train.csv, test.csv",
        {"train.csv": "video_name,tag\n1.mp4,a\n9.mp4,b\n", "test.csv": "video_name,tag\n2.mp4,a\n"},
        (NO_VALIDATION,),
        missing=("9.mp4",),
    ),
    "a name that may be any of two videos": Case(
        clips("{a,b}/1.mp4"),
        files={"metadata.csv": "file_name,label\n1.mp4,x\n"},
        refused=r"metadata\.csv names '1\.mp4', which may be any of a/1\.mp4, b/1\.mp4",
    ),
    "tables and texts that are something else": Case(
        clips("{a,b}/1.mp4"),
        {"a/1.mp4": "* a", "b/1.mp4": "* b"},
        AB,
        files={"train.csv": "epoch,loss\n1,0.5\n", "README.txt": "Videos of a and b.\n", "labels.txt": "a\nb\n"},
        said=(
            r"^Found labels\.txt, not used because no video that it names is there\.$",
            r"^Found train\.csv, not used because its first line names no column of files\.$",
        ),
    ),
    "a manifest goes before other lists, which are named": Case(
        clips("{1,2}.mp4"),
        {"1.mp4": "* a", "2.mp4": "* b"},
        AB,
        "manifest manifest.csv",
        {"manifest.csv": "path,label\n1.mp4,a\n2.mp4,b\n", "metadata.csv": "file_name,label\n1.mp4,b\n"},
        (r"^Found metadata\.csv, not used because the videos are read as manifest manifest\.csv\.$",),
    ),
    "a list of names that are not relative to it, given itself": Case(
        clips("train/{1,2}.mp4"),
        {"train/1.mp4": "* a", "train/2.mp4": "* b"},
        AB,
        "lists train.csv",
        {"train.csv": "video_name,tag\n1.mp4,a\n2.mp4,b\n", "test.csv": "video_name,tag\n3.mp4,a\n"},
        path="train.csv",
    ),
    "a list without a first line, given itself": Case(
        clips("{1,2}.mp4"),
        {"1.mp4": "* 0", "2.mp4": "* 1"},
        ("0", "1"),
        "lists train.csv",
        {"train.csv": "1.mp4 0\n2.mp4 1\n"},
        path="train.csv",
    ),
}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("one") / "one.mp4", 3, codec="libx264").read_bytes()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "one.png"
    Image.new("RGB", (8, 8)).save(path)
    return path.read_bytes()


def write(root: Path, case: Case, encoded: bytes, picture: bytes) -> Path:
    """One encoded video everywhere, with a box behind it that makes its bytes differ."""
    for number, name in enumerate(clips(*case.videos)):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            for frame in range(2):
                (path / f"{frame}.png").write_bytes(picture + f"{number} {frame}".encode())
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded + b"\0\0\0\x0cfree" + number.to_bytes(4, "big"))
    for name, text in case.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture if name.endswith(".png") else text.encode())
    return root / case.path


def shown(data: Dataset, *, drawn: bool) -> dict[str, str]:
    classes = {video.name: "" if video.label is None else data.classes[video.label] for video in data.videos}
    return {v.name: f"{'*' if drawn else v.split} {classes[v.name]}".strip() for v in data.videos}


def assert_said(notes: Iterable[str], patterns: tuple[str, ...]) -> None:
    notes = list(notes)
    assert len(notes) == len(patterns), notes
    for pattern in patterns:
        assert any(re.search(pattern, note) for note in notes), (pattern, notes)


@pytest.mark.parametrize("name", CASES)
def test_layout(name: str, tmp_path: Path, encoded: bytes, picture: bytes) -> None:
    case = CASES[name]
    path = write(tmp_path / "data", case, encoded, picture)
    if case.refused:
        with pytest.raises(DeltafineError, match=case.refused):
            open_dataset(path, **case.options)  # type: ignore[arg-type]
        return
    data = open_dataset(path, **case.options)  # type: ignore[arg-type]
    assert data.layout == case.layout
    assert data.classes == case.classes
    drawn = any(value.startswith("*") for value in case.shown.values())
    assert shown(data, drawn=drawn) == case.shown
    assert_said(data.notes, case.said)
    assert tuple(problem.video for problem in data.problems) == case.missing
    assert [problem for problem in data.scan() if problem.video not in case.missing] == []


NOISE = {
    "README.md": "Videos of train and test.",
    "LICENSE.txt": "Free.",
    "notes.csv": "when,who\nnow,me\n",
    ".DS_Store": "",
    "__MACOSX/train/._v.mp4": "",
    "logs/run.log": "epoch 1",
    "logs/labels.log": "",
    "annotations/readme.md": "",
    "tmp/.keep": "",
}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.refused])
def test_what_else_lies_in_the_folder_does_not_matter(
    name: str, tmp_path: Path, encoded: bytes, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    path = write(tmp_path / "data", case, encoded, picture)
    for other, text in NOISE.items():
        (tmp_path / "data" / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / other).write_text(text)
    monkeypatch.chdir(path if path.is_dir() else path.parent)
    data = open_dataset("." if path.is_dir() else path.name, **case.options)  # type: ignore[arg-type]
    drawn = any(value.startswith("*") for value in case.shown.values())
    assert (data.classes, shown(data, drawn=drawn)) == (case.classes, case.shown)
    if path.is_dir() and path == tmp_path / "data":
        assert any("notes.csv" in note for note in data.notes)


def test_absolute_paths_of_a_list_lead_into_the_folder_or_are_named(tmp_path: Path, encoded: bytes) -> None:
    case = CASES["PyTorchVideo's CSV"]
    write(tmp_path / "data", case, encoded, b"")
    inside = tmp_path / "data" / "clips"
    (tmp_path / "data" / "train.csv").write_text(f"{inside}/x 1.mp4 0\n")
    assert shown(open_dataset(tmp_path / "data"), drawn=False) == case.shown
    (tmp_path / "outside.mp4").write_bytes(encoded)
    for split in ("train", "val", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text(f"{tmp_path}/outside.mp4 0\n")
    (note,) = open_dataset(tmp_path / "data").notes
    assert "not used because the files that it names are outside the data folder" in note
    (tmp_path / "data" / "val.csv").write_text("clips/y.mp4 1\n")
    (tmp_path / "data" / "test.csv").unlink()
    data = open_dataset(tmp_path / "data", allow_outside=True)
    assert [(Path(video.name).name, video.split) for video in data.videos] == [
        ("outside.mp4", "train"),
        ("y.mp4", "validation"),
    ]
