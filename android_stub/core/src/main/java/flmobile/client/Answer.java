package flmobile.client;

import flmobile.core.Hashes;
import flmobile.core.Philox;
import flmobile.core.Spec;
import flmobile.wire.Agreement;
import flmobile.wire.Packet;
import flmobile.wire.Pruning;

/** A client update goes in, the packet that leaves comes out; after the receipt, what is kept: {@code client/answer.py}. */
final class Answer {
    final byte[] packet;
    /** What would be sent if sending were free, under error feedback; else null. */
    final float[] wanted;
    /** The client's own tensors after training, null if it has none. */
    final float[] own;

    private Answer(byte[] packet, float[] wanted, float[] own) {
        this.packet = packet;
        this.wanted = wanted;
        this.own = own;
    }

    /**
     * Returns what a client sends.
     *
     * @param start what the updates of its own tensors are relative to
     * @param secret the device's own 32 bytes, where it adds noise
     * @param run names the federation, where it adds noise
     * @throws DivergedException the loss or the update holds NaN or Inf
     */
    static Answer make(
            Agreement agreement,
            Assignment assignment,
            Agreement.Decoded decoded,
            Update update,
            float[] residual,
            float[] start,
            byte[] secret,
            String run) {
        if (Double.isNaN(update.loss) || Double.isInfinite(update.loss)) {
            throw new DivergedException();
        }
        Spec spec = agreement.spec;
        float[] wanted = agreement.whole.select(update.delta, spec);
        Pruning.apply(decoded.lives, wanted);
        if (agreement.errorFeedback && residual != null) {
            addTo(wanted, spec, agreement.trainable, residual, 1);
        }
        for (int i = 0; decoded.prediction != null && i < wanted.length; i++) {
            wanted[i] -= decoded.prediction[i];
        }
        if (agreement.algorithm.equals("scaffold")) { // minus what both ends foresee: −η·c a local step
            float steps = (float) assignment.localSteps(update.examples);
            float rate = (float) -assignment.plan.learningRate;
            float[] foreseen = new float[agreement.trainable.size()];
            for (int i = 0; i < foreseen.length; i++) {
                foreseen[i] = steps * (rate * decoded.beside[i]);
            }
            addTo(wanted, spec, agreement.trainable, foreseen, -1);
        }
        for (float value : wanted) {
            if (Float.isNaN(value) || Float.isInfinite(value)) {
                throw new DivergedException();
            }
        }
        if (agreement.noise != null) {
            wanted = agreement.noise.noised(wanted, secret, run, assignment.round);
        }
        Pruning.apply(decoded.lives, wanted);
        if (assignment.clipNorm > 0 && assignment.upload.normGain(spec.size()) > 1) {
            clip(wanted, spec, assignment.clipNorm);
        }
        long examples = agreement.bare ? Math.min(update.examples, 1) : update.examples;
        float loss = agreement.bare ? Float.NaN : (float) update.loss;
        Packet.Header header = new Packet.Header(Packet.UPDATE, assignment.round, assignment.round, examples, loss);
        Philox rng = new Philox(Hashes.seedFor(assignment.seed, "codec"));
        byte[] packet = Packet.pack(header, wanted, spec, assignment.upload, rng);
        Spec ownSpec = ownSpec(agreement);
        float[] own = null;
        if (ownSpec.count() > 0) {
            own = agreement.whole.select(update.delta, ownSpec);
            for (int i = 0; i < own.length; i++) {
                own[i] = start[i] + own[i];
            }
        }
        return new Answer(packet, agreement.errorFeedback ? wanted : null, own);
    }

    /** Returns the tensors that never leave a client. */
    static Spec ownSpec(Agreement agreement) {
        return agreement.whole.where(tensor -> agreement.spec.indexOf(tensor.path) < 0);
    }

    /** Changes what a client keeps once it knows what became of its packet; without a receipt, all but its own stays. */
    static void keep(Agreement agreement, Assignment assignment, Kept kept, Receipt receipt) {
        kept.own = kept.ownAfter != null ? kept.ownAfter : kept.own;
        if (receipt == null || !receipt.accepted || !(kept.wanted != null || agreement.keepsVariate())) {
            return;
        }
        Spec spec = agreement.spec;
        float[] sent = Packet.unpack(kept.packet, spec, assignment.upload).values;
        if (kept.wanted != null) {
            kept.residual = residualAfter(agreement, kept.wanted, sent);
        }
        if (agreement.keepsVariate()) {
            if (assignment.clipNorm > 0) {
                clip(sent, spec, assignment.clipNorm);
            }
            float[] counted = spec.select(sent, agreement.trainable);
            float scale = (float) (receipt.localSteps * assignment.plan.learningRate);
            float[] variate = variateOf(agreement, kept).clone();
            for (int i = 0; i < variate.length; i++) {
                variate[i] = agreement.algorithm.equals("scaffold")
                        ? variate[i] - counted[i] / scale
                        : variate[i] + agreement.alpha * counted[i];
            }
            kept.variate = variate;
        }
    }

    /** Returns a client's control variate or linear term; zeros of a client that never took part. */
    private static float[] variateOf(Agreement agreement, Kept kept) {
        return kept.variate != null ? kept.variate : new float[agreement.trainable.size()];
    }

    /** Returns what is added to every step's gradient, null if the algorithm keeps nothing on clients. */
    static float[] pullOf(Agreement agreement, Agreement.Decoded decoded, Kept kept) {
        if (!agreement.keepsVariate()) {
            return null;
        }
        float[] pull = variateOf(agreement, kept).clone();
        for (int i = 0; agreement.algorithm.equals("scaffold") && i < pull.length; i++) {
            pull[i] = decoded.beside[i] - pull[i];
        }
        return pull;
    }

    /** Returns what an accepted packet left out, no longer than half of what was wanted: {@code client/feedback.py}. */
    private static float[] residualAfter(Agreement agreement, float[] wanted, float[] sent) {
        Spec trainable = agreement.trainable;
        float[] whole = agreement.spec.select(wanted, trainable);
        float[] left = agreement.spec.select(sent, trainable);
        for (int i = 0; i < left.length; i++) {
            left[i] = whole[i] - left[i];
        }
        double error = norm(left, trainable);
        double all = norm(whole, trainable);
        error *= error;
        all *= all;
        float share = (float) (error != 0 ? all / (all + error) : 1.0);
        for (int i = 0; i < left.length; i++) {
            left[i] = share * left[i];
        }
        return left;
    }

    private static void addTo(float[] values, Spec spec, Spec part, float[] more, float sign) {
        for (int t = 0; t < part.count(); t++) {
            int to = spec.offset(spec.indexOf(part.tensors().get(t).path));
            for (int i = part.offset(t); i < part.offset(t + 1); i++, to++) {
                values[to] += sign * more[i];
            }
        }
    }

    private static double norm(float[] values, Spec spec) {
        double all = 0;
        for (int t = 0; t < spec.count(); t++) {
            double square = 0;
            for (int i = spec.offset(t); i < spec.offset(t + 1); i++) {
                square += (double) values[i] * values[i];
            }
            all += square;
        }
        return Math.sqrt(all);
    }

    /** Scales values down, in place, so that their L2 norm is at most {@code most}. */
    private static void clip(float[] values, Spec spec, double most) {
        double norm = norm(values, spec);
        if (norm <= most) {
            return;
        }
        float scale = (float) (most / norm * (1 - 1e-6));
        for (int i = 0; i < values.length; i++) {
            values[i] *= scale;
        }
    }
}
