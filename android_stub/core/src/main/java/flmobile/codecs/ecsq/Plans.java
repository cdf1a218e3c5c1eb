package flmobile.codecs.ecsq;

/** How each tensor is coded: its level (0: all zeros), and which classes its rows and columns have. */
final class Plans {
    static final int CONTEXTS = 32;
    static final int CLASSES = 32;
    static final int NEUTRAL = 12;
    static final int SIGN_CLASSES = 7;
    static final int ROW_CLASSES = 4;
    static final int COLUMN_CLASSES = 2;
    static final int SIGNS = 1;

    /** 0 if a tensor is all zeros, else 1 … 31: the context of a flat tensor. */
    final int[] level;
    /** Sum of {@link #ROW_CLASSES}, {@link #COLUMN_CLASSES} and {@link #SIGNS}. */
    final int[] flags;
    /** Classes of the rows of all tensors, of their columns, and sign classes of the columns. */
    final byte[] rows;
    final byte[] columns;
    final byte[] signs;

    Plans(Shapes shapes) {
        level = new int[shapes.tensors()];
        flags = new int[shapes.tensors()];
        rows = new byte[shapes.rowAt[shapes.tensors()]];
        columns = new byte[shapes.columnAt[shapes.tensors()]];
        signs = new byte[columns.length];
    }

    /** Whether any tensor has one of these flags. */
    boolean any(int wanted) {
        for (int flag : flags) {
            if ((flag & wanted) != 0) {
                return true;
            }
        }
        return false;
    }

    /** Whether a tensor is more than one block. */
    boolean hasClasses(int tensor) {
        return (flags[tensor] & (ROW_CLASSES | COLUMN_CLASSES)) != 0;
    }
}
