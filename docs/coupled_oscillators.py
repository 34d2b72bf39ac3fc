"""Coupled pendula: driver, simulated board, system; fourth-system.md walks through this file."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np

from drivers.errors import ProtocolError
from drivers.instrument import check_identity
from drivers.row_key import RowKey
from drivers.spec import ArraySpec
from drivers.transport import Rig, open_http
from drivers.wires.http import exchange
from lab.systems.base import PhysicalSystem, SystemDescription

N = 16  # pendula
PAIRS = np.triu_indices(N, 1)  # one coupling each: the coupling is symmetric
CONTROLS = len(PAIRS[0]) + N  # the couplings, then a torque on each pendulum


class PendulumBoard:
    """The driver: GET /id, POST /stop, POST /run with JSON; the motors at rest are safe."""

    start_angle = ArraySpec("start_angle", "rad", (N,), -1.5, 1.5)
    controls = ArraySpec("controls", "1", (CONTROLS,), -1.0, 1.0)
    angle = ArraySpec("angle", "rad", (N,), -4 * np.pi, 4 * np.pi)

    def __init__(self, client, name, expect_idn, *, controls=(-1.0, 1.0)):
        self._client, self.name, self._expect_idn = client, name, expect_idn
        self.controls = self.controls.narrowed(*controls)

    def identify(self):
        """Return the board's own description of itself."""
        return str(self._ask("GET", "/id"))

    def start(self):
        """Check who answers, and stop the motors."""
        check_identity(self.name, self.identify(), self._expect_idn)
        self.shutdown()

    def shutdown(self):
        """Stop the motors: the safe state; idempotent."""
        if not self._client.is_closed:
            self._ask("POST", "/stop")

    def close(self):
        """Stop the motors and release the connection; idempotent."""
        with closing(self._client):
            self.shutdown()

    def run(self, start_angle, controls):
        """Hold the pendula at start_angle (N,), let go, and return their angles at t = 1."""
        given = (self.start_angle, start_angle), (self.controls, controls)
        body = {s.name: s.check(v, instrument=self.name).reshape(s.shape) for s, v in given}
        answer = self._ask("POST", "/run", {key: v.tolist() for key, v in body.items()})
        try:
            return self.angle.check(answer, instrument=self.name).reshape(N)
        except ValueError as error:
            raise ProtocolError(self.name, f"/run: {error}") from error

    def _ask(self, method, path, body=None):
        request = self._client.build_request(method, path, json=body)
        answer = exchange(self._client, request, name=self.name, asked=path)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ProtocolError(self.name, f"{path}: not JSON: {answer[:80]!r}") from error


def open_board(name, config, rigs, waits):
    """Open the driver: what the bench file names."""
    client = open_http(config.address, rigs, timeout_s=config.timeout_s)
    return PendulumBoard(client, name, config.expect_idn, **config.settings, **config.limits)


def swing(angle, controls, stiffness=1.0, coupling_error=0.0, steps=10):
    """Return q(1) after rest at q(0): q''_i = -sin q_i + sum_j J_ij (sin q_j - sin q_i) + e_i."""
    coupling = np.zeros((N, N))
    coupling[PAIRS] = controls[:-N] + coupling_error
    coupling += coupling.T

    def rate(state):
        s = np.sin(stiffness * state[0])
        force = -s + coupling @ s - coupling.sum(1) * s + controls[-N:]
        return np.array([state[1], force])

    state, h = np.array([angle, np.zeros(N)]), 1 / steps
    for _ in range(steps):  # Runge-Kutta of fourth order
        a = rate(state)
        b = rate(state + h / 2 * a)
        c = rate(state + h / 2 * b)
        state = state + h / 6 * (a + 2 * b + 2 * c + rate(state + h * c))
    return state[0]


class SimulatedBoard:
    """The board's firmware and its pendula; `key` says which row comes next."""

    def __init__(self, device_seed, gap, noise, seed):
        specimen = np.random.default_rng(device_seed).standard_normal(CONTROLS - N)
        self.coupling_error, self.stiffness = 0.2 * gap * specimen, 1 + 0.1 * gap
        self.noise_rad, self.seed = 0.02 * noise, seed
        self.key, self.moving = RowKey(2**63, 0, 0.0), True

    def announce(self, key):
        """Take the next row's key, from which its noise follows."""
        self.key = key

    def handle(self, method, path, body):
        """Answer a request with status, content type and body."""
        if path == "/stop":
            self.moving = False
        answer = self._run(**json.loads(body)) if path == "/run" else "Example pendulum board"
        return 200, "application/json", json.dumps(answer).encode()

    def _run(self, start_angle, controls):
        self.moving = True
        key, self.key = self.key, replace(self.key, index=self.key.index + 1)
        noise = np.random.default_rng([self.seed, key.stream, key.index]).standard_normal(N)
        start = np.array(start_angle) + self.noise_rad * noise
        angle = swing(start, np.array(controls), self.stiffness, self.coupling_error)
        return np.clip(angle, -4 * np.pi, 4 * np.pi).tolist()  # as far as the encoders count


def simulated_rig(**dials):
    """Return the plant and what stands at its addresses, `mock://RIG/board`."""
    board = SimulatedBoard(**dials)
    return Rig(board, {"board": board})


class CoupledOscillators(PhysicalSystem):
    """y = angles (16,) at t = 1 of pendula let go at angles x (16,), with controls theta (136,)."""

    def __init__(self, *, name, board, row_time_s, announce=None):
        super().__init__(announce)
        self.board, self.instruments = board, (board,)
        x, theta = replace(board.start_angle, name="x"), replace(board.controls, name="theta")
        y = replace(board.angle, name="y")
        self.description = SystemDescription(name, x, theta, y, row_time_s)

    def _measure_row(self, x, theta):
        y = self.board.run(x, theta)
        return y, bool((np.abs(y) >= self.description.y.high).any())
