"""Bugs in readers, encoder and loader."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("pictures: any decoder of Pillow is started", "data/decode.py", ", formats=[each.plugin for each in readable()])", ")",
           "data/test_decode.py -k outside_the_list"),
    Mutant("pictures: PostScript is not named", "data/formats.py", '    (b"%!PS", "PostScript"),\n', "", "data/test_decode.py -k named"),
    Mutant("pictures: pixels are not limited", "data/decode.py", "if not 0 < width * height <= max_pixels:",
           "if not 0 < width * height:", "data/test_decode.py -k limit"),
    Mutant("pictures: tiles are not limited", "data/decode.py", "if tile > max_pixels else None", "if False else None",
           "data/test_decode.py -k tiles"),
    Mutant("pictures: a decoder's odd errors leave", "data/decode.py", "except Exception as error:  # of damaged data",
           "except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:  # of damaged data",
           "data/test_decode.py -k whatever"),
    Mutant("pictures: broken EXIF is damage", "data/decode.py", "except Exception as error:  # a parser", "except KeyError as error:  # a parser",
           "data/test_decode.py -k exif"),
    Mutant("pictures: an error of the disk is damage", "data/decode.py", "        raise _unreadable(str(file), error) from error",
           "        raise BrokenPicture(str(error)) from error", "data/test_decode.py -k disk"),
    Mutant("pictures: an error of the disk is not tried again", "data/decode.py", "NUM_TRIES = 3", "NUM_TRIES = 1",
           "data/test_decode.py -k disk"),
    Mutant("pictures: deep greys become floats at once", "data/decode.py", "values = np.asarray(picture)  # (H, W)",
           "values = np.asarray(picture, dtype=np.float64)  # (H, W)", "data/test_decode.py -k few_bytes"),
    Mutant("pictures: Pillow warns on the terminal", "data/decode.py",
           'warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\\b")', "pass", "data/test_decode.py -k terminal"),
    Mutant("loader: the same order in every epoch", "data/loader.py", 'generator(self._config.seed, "order", visit)',
           'generator(self._config.seed, "order")', "data/test_loader.py"),
]  # fmt: skip
