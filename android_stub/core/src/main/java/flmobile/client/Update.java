package flmobile.client;

/** What local training produced. */
public final class Update {
    /** {@code w_local − w_start} of all that trains, values of {@code Agreement.whole}. */
    public final float[] delta;

    public final int examples;
    /** Mean loss of the last epoch. */
    public final double loss;

    public Update(float[] delta, int examples, double loss) {
        this.delta = delta;
        this.examples = examples;
        this.loss = loss;
    }
}
