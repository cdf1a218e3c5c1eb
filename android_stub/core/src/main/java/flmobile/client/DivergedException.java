package flmobile.client;

/** Local training ended in NaN or Inf: this client gives the round up. */
final class DivergedException extends RuntimeException {
    DivergedException() {
        super("local training diverged");
    }
}
