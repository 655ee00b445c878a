"""Recognition of speech and handwriting: labels of a sequence whose places nobody knows, by CTC."""

from fastlstm.tasks.recognition.recognizer import SequenceRecognizer as SequenceRecognizer
from fastlstm.tasks.recognition.recognizer import Transcript as Transcript
