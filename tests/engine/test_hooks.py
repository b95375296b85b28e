"""What is written when: each evaluation, though the storage keeps the last one alone."""

from types import SimpleNamespace

from detectron2.utils.events import EventWriter

from moco_det.engine.hooks import Writers


def test_an_evaluation_is_written_at_its_step_and_before_the_next_replaces_it():
    trainer, written = SimpleNamespace(iter=0, max_iter=6), []

    class Recorder(EventWriter):
        def write(self):
            written.append(trainer.iter)

    hook = Writers([Recorder()], period=100, evaluation_period=3)
    hook.trainer = trainer
    for trainer.iter in range(6):
        hook.before_step()
        hook.after_step()
    assert written == [2, 2, 5, 5]
