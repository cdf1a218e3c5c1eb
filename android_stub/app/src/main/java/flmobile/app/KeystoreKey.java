package flmobile.app;

import android.security.keystore.KeyGenParameterSpec;
import android.security.keystore.KeyProperties;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import javax.crypto.KeyGenerator;
import javax.crypto.SecretKey;

/** A key of the Android keystore: used there, where there is hardware for it inside that, and never read. */
final class KeystoreKey implements ExampleStore.Keys {
    private static final String PROVIDER = "AndroidKeyStore";
    private static final String ALIAS = "examples";

    @Override
    public SecretKey get() throws GeneralSecurityException, IOException {
        SecretKey key = (SecretKey) keystore().getKey(ALIAS, null);
        if (key != null) {
            return key;
        }
        KeyGenerator maker = KeyGenerator.getInstance(KeyProperties.KEY_ALGORITHM_AES, PROVIDER);
        maker.init(new KeyGenParameterSpec.Builder(ALIAS, KeyProperties.PURPOSE_ENCRYPT | KeyProperties.PURPOSE_DECRYPT)
                .setBlockModes(KeyProperties.BLOCK_MODE_GCM)
                .setEncryptionPaddings(KeyProperties.ENCRYPTION_PADDING_NONE)
                .setKeySize(256)
                .build());
        return maker.generateKey();
    }

    @Override
    public void delete() throws GeneralSecurityException, IOException {
        keystore().deleteEntry(ALIAS);
    }

    private static KeyStore keystore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(PROVIDER);
        store.load(null);
        return store;
    }
}
